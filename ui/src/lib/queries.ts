/** What the page knows of the server, by name: the one source of truth. Events say when it is out of date. */
import { QueryClient, infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, told, type Schemas } from "./api";
import { Failure } from "./failure";

export const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 30_000,
      networkMode: "always", // the server is on this machine: a browser that is offline still reaches it
      retry: (count, thrown) => !(thrown instanceof Failure && thrown.status < 500) && count < 2,
    },
    mutations: { networkMode: "always" },
  },
});

export const status = queryOptions({ queryKey: ["status"], queryFn: () => told(api.GET("/api/status")) });
export const steering = queryOptions({ queryKey: ["steering"], queryFn: () => told(api.GET("/api/steering")) });
export const monitor = queryOptions({ queryKey: ["monitor"], queryFn: () => told(api.GET("/api/monitor")) });
export const hardware = queryOptions({ queryKey: ["hardware"], queryFn: () => told(api.GET("/api/hardware")) });
export const models = queryOptions({
  queryKey: ["models"],
  queryFn: async () => (await told(api.GET("/api/models"))).models,
});
export const saes = queryOptions({ queryKey: ["saes"], queryFn: async () => (await told(api.GET("/api/saes"))).saes });
export const jobs = queryOptions({ queryKey: ["jobs"], queryFn: async () => (await told(api.GET("/api/jobs"))).jobs });

export const shelf = queryOptions({
  queryKey: ["registry", "models"],
  queryFn: async () => (await told(api.GET("/api/registry/models"))).models,
  staleTime: Infinity, // it ships with the server
});

export const PAGE = 100;

export const profiles = (search = "", offset = 0) =>
  queryOptions({
    queryKey: ["profiles", search, offset],
    queryFn: () => told(api.GET("/api/profiles", { params: { query: { search, limit: PAGE, offset } } })),
    placeholderData: keepPreviousData,
  });

export const profile = (name: string) =>
  queryOptions({
    queryKey: ["profile", name],
    queryFn: () => told(api.GET("/api/profiles/{name}", { params: { path: { name } } })),
  });

export const feature = (sae: string, index: number) =>
  queryOptions({
    queryKey: ["feature", sae, index],
    queryFn: () => told(api.GET("/api/features/{index}", { params: { path: { index }, query: { sae } } })),
  });

/** Which requests are meant. */
export interface Filter {
  client?: string;
  profile?: string;
  /** Empty: without what chat clients ask for behind the chat. */
  task?: "";
}

export const rows = (filter: Filter) =>
  infiniteQueryOptions({
    queryKey: ["requests", "rows", filter],
    queryFn: async ({ pageParam }) =>
      (
        await told(
          api.GET("/api/requests", { params: { query: { ...filter, limit: PAGE, before: pageParam ?? undefined } } }),
        )
      ).requests,
    initialPageParam: null as string | null,
    getNextPageParam: (page: Schemas["RequestRecord"][]) => (page.length === PAGE ? page.at(-1)!.id : undefined),
    placeholderData: keepPreviousData,
  });
