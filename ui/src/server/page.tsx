/** Server. */
import { InTerminal } from "@/components/in-terminal";

export const ServerPage = () => <InTerminal title="Server" command="millm ps" />;
