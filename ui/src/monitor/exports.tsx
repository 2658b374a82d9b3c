/** The history as a file, and forgetting it. */
import { Button, Menu } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { ConfirmDelete } from "@/components/confirm-delete";
import { failed, said } from "@/components/toast";
import { api, told } from "@/lib/api";
import { download } from "@/lib/download";
import { client } from "@/lib/queries";

export function Exports() {
  const save = useMutation({
    mutationFn: (format: "jsonl" | "csv") => download(`/api/monitor/export?format=${format}`, `activations.${format}`),
    onError: failed,
  });
  const forget = useMutation({
    mutationFn: () => told(api.DELETE("/api/requests")),
    onSuccess: ({ requests }) => {
      said(`${requests} requests are forgotten.`);
      void client.invalidateQueries({ queryKey: ["requests"] });
      void client.invalidateQueries({ queryKey: ["statistics"] });
    },
    onError: failed,
  });
  return (
    <>
      <Menu>
        <Menu.Target>
          <Button size="xs" variant="default" loading={save.isPending}>
            Export
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={() => save.mutate("jsonl")}>JSON lines: a line per token</Menu.Item>
          <Menu.Item onClick={() => save.mutate("csv")}>CSV: a row per token and feature</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <ConfirmDelete name="the history" what="All requests that are kept go." remove={() => forget.mutate()} />
    </>
  );
}
