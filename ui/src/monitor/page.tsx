/** Monitor. */
import { Page } from "@/components/page";

export const MonitorPage = () => <Page title="Monitor">{null}</Page>;
