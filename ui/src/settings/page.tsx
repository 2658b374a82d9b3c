/** Settings. */
import { InTerminal } from "@/components/in-terminal";

export const SettingsPage = () => <InTerminal title="Settings" command="millm serve --help" />;
