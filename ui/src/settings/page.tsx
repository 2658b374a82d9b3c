/** Settings. */
import { Page } from "@/components/page";

export const SettingsPage = () => <Page title="Settings">{null}</Page>;
