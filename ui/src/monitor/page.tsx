/** Monitor. */
import { InTerminal } from "@/components/in-terminal";

export const MonitorPage = () => <InTerminal title="Monitor" command="curl http://localhost:8000/api/monitor" />;
