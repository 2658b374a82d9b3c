/** Features. */
import { InTerminal } from "@/components/in-terminal";

export const FeaturesPage = () => <InTerminal title="Features" command="millm features search" />;
