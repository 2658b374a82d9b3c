/** The pages and their addresses; each page is fetched when it is first opened. */
import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { Empty, Failed, Loading } from "@/components/states";
import { Shell } from "./shell";

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => <Empty title="There is no such page">The menu has those that there are.</Empty>,
});

const at = <Path extends string>(path: Path) => ({ getParentRoute: () => root, path });

const text = (value: unknown): string | undefined => (typeof value === "string" && value ? value : undefined);
const index = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;

export interface FeatureSearch {
  sae?: string;
  index?: number;
}

const routes = [
  createRoute({ ...at("/"), component: lazyRouteComponent(() => import("@/playground/page"), "PlaygroundPage") }),
  createRoute({ ...at("/models"), component: lazyRouteComponent(() => import("@/models/page"), "ModelsPage") }),
  createRoute({ ...at("/saes"), component: lazyRouteComponent(() => import("@/saes/page"), "SaesPage") }),
  createRoute({
    ...at("/monitor"),
    validateSearch: (search): { request?: string } => ({ request: text(search.request) }),
    component: lazyRouteComponent(() => import("@/monitor/page"), "MonitorPage"),
  }),
  createRoute({ ...at("/profiles"), component: lazyRouteComponent(() => import("@/profiles/page"), "ProfilesPage") }),
  createRoute({
    ...at("/features"),
    validateSearch: (search): FeatureSearch => ({ sae: text(search.sae), index: index(search.index) }),
    component: lazyRouteComponent(() => import("@/features/page"), "FeaturesPage"),
  }),
  createRoute({ ...at("/server"), component: lazyRouteComponent(() => import("@/server/page"), "ServerPage") }),
  createRoute({ ...at("/settings"), component: lazyRouteComponent(() => import("@/settings/page"), "SettingsPage") }),
] as const;

export const router = createRouter({
  routeTree: root.addChildren(routes),
  basepath: "/ui",
  defaultPreload: "intent",
  defaultPendingComponent: () => <Loading />,
  defaultErrorComponent: ({ error, reset }) => <Failed thrown={error} retry={reset} />,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
