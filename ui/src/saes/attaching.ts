/** Attaching an SAE while the model answers. */
import { useMutation } from "@tanstack/react-query";
import { said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { client } from "@/lib/queries";

export const useAttach = () =>
  useMutation({
    mutationFn: (wanted: Schemas["Attach"]) => told(api.POST("/api/attachments", { body: wanted })),
    onSuccess: (sae) => {
      said(`${sae.sae} is attached at ${sae.hook_point}.`);
      for (const name of ["status", "saes", "steering", "profiles"])
        void client.invalidateQueries({ queryKey: [name] });
    },
  });
