/** Models. */
import { InTerminal } from "@/components/in-terminal";

export const ModelsPage = () => <InTerminal title="Models" command="millm list" />;
