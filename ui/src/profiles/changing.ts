/** What can be done with a profile; the lists that show it are asked for anew. */
import { useMutation } from "@tanstack/react-query";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { client } from "@/lib/queries";

export function outdated(): void {
  for (const name of ["profiles", "profile", "steering", "status"]) void client.invalidateQueries({ queryKey: [name] });
}

const path = (name: string) => ({ params: { path: { name } } });

export const useActivate = () =>
  useMutation({
    mutationFn: (name: string) => told(api.POST("/api/profiles/{name}/activate", path(name))),
    onSuccess: outdated,
    onError: failed,
  });

export const useDeactivate = () =>
  useMutation({
    mutationFn: () => told(api.POST("/api/profiles/deactivate")),
    onSuccess: outdated,
    onError: failed,
  });

export const useDuplicate = () =>
  useMutation({
    mutationFn: (name: string) => told(api.POST("/api/profiles/{name}/duplicate", path(name))),
    onSuccess: ({ name }) => {
      said(`${name} is a copy.`);
      outdated();
    },
    onError: failed,
  });

/** Where it fails the form that asked says so. */
export const useRename = (name: string) =>
  useMutation({
    mutationFn: (next: string) =>
      told(api.POST("/api/profiles/{name}/rename", { ...path(name), body: { name: next } })),
    onSuccess: outdated,
  });

export const usePut = (name: string) =>
  useMutation({
    mutationFn: (body: Schemas["Profile"]) => told(api.PUT("/api/profiles/{name}", { ...path(name), body })),
    onSuccess: outdated,
  });

export const useAdd = () =>
  useMutation({
    mutationFn: (body: Schemas["Profile"]) => told(api.POST("/api/profiles", { body })),
    onSuccess: outdated,
    onError: failed,
  });

/** → what it was, so that it can be added again. The active one is turned off with it. */
export const useDelete = () =>
  useMutation({
    mutationFn: async (name: string) => {
      const was = await told(api.GET("/api/profiles/{name}", path(name)));
      await told(api.DELETE("/api/profiles/{name}", { params: { path: { name }, query: { force: true } } }));
      return was.profile as Schemas["Profile"];
    },
    onSuccess: outdated,
    onError: failed,
  });
