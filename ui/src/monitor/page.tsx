/** The monitor: what is watched, what fires now, and what fired in the last requests. */
import { Button, Tabs } from "@mantine/core";
import { getRouteApi } from "@tanstack/react-router";
import { useQuery } from "@tanstack/react-query";
import { Page } from "@/components/page";
import { Failed, Loading } from "@/components/states";
import { monitor } from "@/lib/queries";
import { Exports } from "./exports";
import { Live } from "./live";
import { OneRequest } from "./one-request";
import { Requests } from "@/components/requests";
import { StatisticsTable } from "./statistics";
import { Watched } from "./watched";

const route = getRouteApi("/monitor");

export function MonitorPage() {
  const { request } = route.useSearch();
  const go = route.useNavigate();
  const { data, error, refetch } = useQuery(monitor);
  if (request)
    return (
      <Page
        title="A request"
        actions={
          <Button size="xs" variant="default" onClick={() => void go({ search: {} })}>
            All requests
          </Button>
        }
      >
        <OneRequest key={request} id={request} closed={() => void go({ search: {} })} />
      </Page>
    );
  return (
    <Page title="Monitor" actions={<Exports />}>
      {error && <Failed thrown={error} retry={() => void refetch()} />}
      {!data && !error && <Loading />}
      {data && (
        <>
          <Watched state={data} />
          <Live state={data} />
        </>
      )}
      <Tabs defaultValue="requests" keepMounted={false}>
        <Tabs.List>
          <Tabs.Tab value="requests">Requests</Tabs.Tab>
          <Tabs.Tab value="statistics">Statistics</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="requests" pt="sm">
          <Requests open={(id) => void go({ search: { request: id } })} />
        </Tabs.Panel>
        <Tabs.Panel value="statistics" pt="sm">
          <StatisticsTable open={(id) => void go({ search: { request: id } })} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}
