/** SAEs. */
import { Page } from "@/components/page";

export const SaesPage = () => <Page title="SAEs">{null}</Page>;
