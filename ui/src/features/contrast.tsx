/** Two kinds of text: which features tell them apart, and a profile that pushes towards the first. */
import { Button, Group, NumberInput, SimpleGrid, Stack, Table, Textarea, TextInput, Title } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { FeatureChip } from "@/components/feature-chip";
import { Empty, Failed } from "@/components/states";
import { said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { asFailure } from "@/lib/failure";
import { short } from "@/lib/numbers";
import { client } from "@/lib/queries";

const lines = (text: string) => text.split("\n").filter((line) => line.trim());

export function Contrast({ sae }: { sae: string }) {
  const [a, setA] = useState("");
  const [b, setB] = useState("");
  const [make, setMake] = useState<string | number>(5);
  const contrast = useMutation({
    mutationFn: () =>
      told(
        api.POST("/api/features/contrast", {
          body: { a: lines(a), b: lines(b), sae, make: typeof make === "number" ? make : 0 },
        }),
      ),
  });
  return (
    <Stack gap="sm">
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Textarea
          label="Texts with it"
          description="One a line"
          autosize
          minRows={4}
          maxRows={12}
          value={a}
          onChange={(event) => setA(event.currentTarget.value)}
        />
        <Textarea
          label="Texts without it"
          description="One a line; as like the others as they can be"
          autosize
          minRows={4}
          maxRows={12}
          value={b}
          onChange={(event) => setB(event.currentTarget.value)}
        />
      </SimpleGrid>
      <Group align="end">
        <NumberInput
          label="Features of the profile"
          min={0}
          max={20}
          w={170}
          allowDecimal={false}
          value={make}
          onChange={setMake}
        />
        <Button
          disabled={!lines(a).length || !lines(b).length}
          loading={contrast.isPending}
          onClick={() => contrast.mutate()}
        >
          What tells them apart?
        </Button>
      </Group>
      {contrast.error && <Failed thrown={contrast.error} />}
      {contrast.data && (
        <>
          <SimpleGrid cols={{ base: 1, lg: 2 }}>
            <Separators title="More in the first" sae={contrast.data.sae} all={contrast.data.more_in_a} />
            <Separators title="More in the second" sae={contrast.data.sae} all={contrast.data.more_in_b} />
          </SimpleGrid>
          {contrast.data.profile && (
            <Keep key={contrast.submittedAt} profile={contrast.data.profile as unknown as Schemas["Profile"]} />
          )}
        </>
      )}
    </Stack>
  );
}

const Separators = ({ title, sae, all }: { title: string; sae: string; all: readonly Schemas["Separator"][] }) => (
  <Stack gap={4}>
    <Title order={2} size="h5">
      {title}
    </Title>
    {all.length === 0 && <Empty title="None" />}
    {all.length > 0 && (
      <Table.ScrollContainer minWidth={420} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table aria-label={title}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Feature</Table.Th>
              <Table.Th>Means</Table.Th>
              <Table.Th title="How often a text with it has more than one without">AUC</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {all.map(({ index, label, mean_a, mean_b, auc }) => (
              <Table.Tr key={index}>
                <Table.Td>
                  <FeatureChip sae={sae} index={index} label={label} />
                </Table.Td>
                <Table.Td>
                  {short(mean_a)} and {short(mean_b)}
                </Table.Td>
                <Table.Td>{short(auc)}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    )}
  </Stack>
);

function Keep({ profile }: { profile: Schemas["Profile"] }) {
  const [name, setName] = useState(profile.name);
  const save = useMutation({
    mutationFn: () => told(api.POST("/api/profiles", { body: { ...profile, name: name.trim() } })),
    onSuccess: ({ model_id }) => {
      said(model_id ? `Saved. Chat clients find it as ${model_id}.` : "Saved.");
      void client.invalidateQueries({ queryKey: ["profiles"] });
    },
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <Group align="end">
        <TextInput
          label="Keep them as a profile"
          description={`${profile.features?.length ?? 0} features`}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={save.error && asFailure(save.error).message}
        />
        <Button type="submit" loading={save.isPending} disabled={!name.trim()}>
          Save
        </Button>
      </Group>
    </form>
  );
}
