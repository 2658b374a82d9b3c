/** Features. */
import { Page } from "@/components/page";

export const FeaturesPage = () => <Page title="Features">{null}</Page>;
