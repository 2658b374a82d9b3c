/** SAEs. */
import { InTerminal } from "@/components/in-terminal";

export const SaesPage = () => <InTerminal title="SAEs" command="millm saes" />;
