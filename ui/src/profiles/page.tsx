/** Profiles. */
import { Page } from "@/components/page";

export const ProfilesPage = () => <Page title="Profiles">{null}</Page>;
