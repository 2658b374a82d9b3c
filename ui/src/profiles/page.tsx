/** Profiles. */
import { InTerminal } from "@/components/in-terminal";

export const ProfilesPage = () => <InTerminal title="Profiles" command="millm profiles list" />;
