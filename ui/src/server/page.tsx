/** The server: how to connect to it, who is being answered, what it says, and what it runs on. */
import { Tabs } from "@mantine/core";
import { useNavigate } from "@tanstack/react-router";
import { Page } from "@/components/page";
import { Requests } from "@/components/requests";
import { ConnectPanel } from "./connect-panel";
import { HardwarePanel } from "./hardware";
import { Logs } from "./logs";
import { Queue } from "./queue";
import { Routes } from "./routes";

export const ServerPage = () => (
  <Page title="Server">
    <Tabs defaultValue="connect" keepMounted={false}>
      <Tabs.List>
        <Tabs.Tab value="connect">Connect</Tabs.Tab>
        <Tabs.Tab value="requests">Requests</Tabs.Tab>
        <Tabs.Tab value="queue">Queue</Tabs.Tab>
        <Tabs.Tab value="logs">Logs</Tabs.Tab>
        <Tabs.Tab value="hardware">Hardware</Tabs.Tab>
        <Tabs.Tab value="api">API</Tabs.Tab>
      </Tabs.List>
      <Tabs.Panel value="connect" pt="sm">
        <ConnectPanel />
      </Tabs.Panel>
      <Tabs.Panel value="requests" pt="sm">
        <LastRequests />
      </Tabs.Panel>
      <Tabs.Panel value="queue" pt="sm">
        <Queue />
      </Tabs.Panel>
      <Tabs.Panel value="logs" pt="sm">
        <Logs />
      </Tabs.Panel>
      <Tabs.Panel value="hardware" pt="sm">
        <HardwarePanel />
      </Tabs.Panel>
      <Tabs.Panel value="api" pt="sm">
        <Routes />
      </Tabs.Panel>
    </Tabs>
  </Page>
);

/** Each opens in the monitor: what it was, what steered it, what fired. */
function LastRequests() {
  const go = useNavigate();
  return <Requests open={(request) => void go({ to: "/monitor", search: { request } })} />;
}
