/** Playground. */
import { Page } from "@/components/page";

export const PlaygroundPage = () => <Page title="Playground">{null}</Page>;
