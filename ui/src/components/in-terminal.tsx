/** What a page that is not built yet says: the command that does the same. */
import { Code } from "@mantine/core";
import { Page } from "./page";
import { Empty } from "./states";

export const InTerminal = ({ title, command }: { title: string; command: string }) => (
  <Page title={title}>
    <Empty title="Not in the browser yet">
      The terminal has it: <Code>{command}</Code>
    </Empty>
  </Page>
);
