/** What the monitor asks for: requests by who asked, one of them token by token, and what they add up to. */
import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, told, type Schemas } from "@/lib/api";
import { PAGE } from "@/lib/queries";

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
    getNextPageParam: (page: Schemas["RequestRow"][]) => (page.length === PAGE ? page.at(-1)!.id : undefined),
    placeholderData: keepPreviousData,
  });

export const one = (id: string) =>
  queryOptions({
    queryKey: ["request", id],
    queryFn: () => told(api.GET("/api/requests/{id}", { params: { path: { id } } })),
    staleTime: Infinity, // it has ended
  });

export const statistics = queryOptions({
  queryKey: ["statistics"],
  queryFn: () => told(api.GET("/api/monitor/statistics")),
});
