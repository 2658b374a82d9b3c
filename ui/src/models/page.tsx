/** Models. */
import { Page } from "@/components/page";

export const ModelsPage = () => <Page title="Models">{null}</Page>;
