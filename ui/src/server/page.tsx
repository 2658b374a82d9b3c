/** Server. */
import { Page } from "@/components/page";

export const ServerPage = () => <Page title="Server">{null}</Page>;
