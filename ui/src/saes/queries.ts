/** What only this page asks. */
import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, told } from "@/lib/api";

export interface Facets {
  model: string;
  layer?: number;
  site?: "resid_pre" | "resid_mid" | "resid_post" | "attn_out" | "mlp_out" | "hook_z" | "transcoder" | "embed";
  width?: number;
  most_l0?: number;
  text?: string;
}

export const MOST = 50;

export const known = (facets: Facets, offset: number) =>
  queryOptions({
    queryKey: ["registry", "saes", facets, offset],
    queryFn: () => told(api.GET("/api/registry/saes", { params: { query: { ...facets, limit: MOST, offset } } })),
    placeholderData: keepPreviousData,
    enabled: facets.model !== "",
  });
