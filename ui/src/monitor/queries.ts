/** What only the monitor asks for: one request token by token, and what all of them add up to. */
import { queryOptions } from "@tanstack/react-query";
import { api, told } from "@/lib/api";

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
