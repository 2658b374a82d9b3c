/** What only this page asks. */
import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, told, type Schemas } from "@/lib/api";

export const estimate = (wanted: Schemas["EstimateBody"]) =>
  queryOptions({
    queryKey: ["estimate", wanted],
    queryFn: () => told(api.POST("/api/models/estimate", { body: wanted })),
    staleTime: 5_000,
    placeholderData: keepPreviousData,
  });

export const searched = (text: string) =>
  queryOptions({
    queryKey: ["hub", text],
    queryFn: async () => (await told(api.POST("/api/models/search", { body: { text, limit: 20 } }))).models,
    staleTime: 60_000,
    retry: false,
  });

export const preview = (id: string) =>
  queryOptions({
    queryKey: ["preview", id],
    queryFn: () => told(api.POST("/api/models/preview", { body: { id, revision: "main" } })),
    retry: false,
  });
