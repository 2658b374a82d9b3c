/** One profile: what it steers, whether it fits what runs, and what can be done with it. */
import { Badge, Button, Card, Group, Menu, Modal, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Copy } from "@/components/copy";
import { failed, said } from "@/components/toast";
import type { Schemas } from "@/lib/api";
import { download } from "@/lib/download";
import { useActivate, useAdd, useDeactivate, useDelete, useDuplicate } from "./changing";
import { Compare } from "./compare";
import { Edit } from "./edit";
import { FORMATS, type Format } from "./formats";
import { RenameForm } from "./rename";

type Asked = "edit" | "rename" | "compare" | null;
const TITLES = { edit: "Edit", rename: "Rename", compare: "Compare" };

export function ProfileCard({ entry }: { entry: Schemas["ProfileEntry"] }) {
  const { name } = entry;
  const [asked, ask] = useState<Asked>(null);
  const [activate, deactivate, duplicate] = [useActivate(), useDeactivate(), useDuplicate()];
  const [add, remove] = [useAdd(), useDelete()];
  const save = useMutation({
    mutationFn: ({ format, suffix }: Format) =>
      download(`/api/profiles/${encodeURIComponent(name)}/export?format=${format}`, `${name}.${suffix}`),
    onError: failed,
  });
  const gone = (was: Schemas["Profile"]) => {
    const id = said(
      <Group justify="space-between">
        <span>{name} is deleted.</span>
        <Button
          size="xs"
          variant="default"
          onClick={() => add.mutate(was, { onSuccess: () => notifications.hide(id) })}
        >
          Undo
        </Button>
      </Group>,
    );
  };
  const close = () => ask(null);
  return (
    <Card withBorder padding="sm" component="section" aria-label={name}>
      <Group justify="space-between" align="start">
        <Stack gap={4} miw={0} flex={1}>
          <Group gap="xs">
            <Text fw={600} style={{ overflowWrap: "anywhere" }}>
              {name}
            </Text>
            {entry.is_active && <Badge variant="filled">active</Badge>}
          </Group>
          {entry.description && <Text size="sm">{entry.description}</Text>}
          <Text size="sm">
            {[
              `${entry.features} ${entry.features === 1 ? "feature" : "features"}`,
              entry.model,
              ...entry.saes,
              entry.source && `from ${entry.source}`,
            ]
              .filter(Boolean)
              .join(" · ")}
          </Text>
          {entry.misfit && <Text size="sm">Does not fit what runs: {entry.misfit}</Text>}
        </Stack>
        <Group gap="xs">
          {entry.is_active ? (
            <Button size="xs" variant="default" loading={deactivate.isPending} onClick={() => deactivate.mutate()}>
              Deactivate
            </Button>
          ) : (
            <Button
              size="xs"
              aria-label={`Activate ${name}`}
              disabled={entry.misfit !== null}
              loading={activate.isPending}
              onClick={() => activate.mutate(name)}
            >
              Activate
            </Button>
          )}
          {entry.model_id && <Copy text={entry.model_id} label="Copy model id" />}
          <Menu withinPortal>
            <Menu.Target>
              <Button size="xs" variant="default" aria-label={`More for ${name}`}>
                More
              </Button>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Item onClick={() => ask("edit")}>Edit…</Menu.Item>
              <Menu.Item onClick={() => duplicate.mutate(name)}>Duplicate</Menu.Item>
              <Menu.Item onClick={() => ask("rename")}>Rename…</Menu.Item>
              <Menu.Item onClick={() => ask("compare")}>Compare…</Menu.Item>
              <Menu.Label>Export</Menu.Label>
              {FORMATS.map((format) => (
                <Menu.Item key={format.format} onClick={() => save.mutate(format)}>
                  {format.label}
                </Menu.Item>
              ))}
              <Menu.Divider />
              <Menu.Item onClick={() => remove.mutate(name, { onSuccess: gone })}>Delete</Menu.Item>
            </Menu.Dropdown>
          </Menu>
        </Group>
      </Group>
      <Modal opened={asked !== null} onClose={close} size="xl" title={asked && `${TITLES[asked]} ${name}`}>
        {asked === "edit" && <Edit name={name} done={close} />}
        {asked === "rename" && <RenameForm name={name} done={close} />}
        {asked === "compare" && <Compare name={name} />}
      </Modal>
    </Card>
  );
}
