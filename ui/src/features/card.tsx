/** One feature: its name, what it promotes, what is like it, how it fired here, and where. */
import { Anchor, Button, Card, Group, SimpleGrid, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { FeatureChip } from "@/components/feature-chip";
import { Failed, Loading } from "@/components/states";
import { Sparkline } from "@/components/sparkline";
import type { Schemas } from "@/lib/api";
import { useSteer, useWatch } from "@/lib/knobs";
import { percent, short } from "@/lib/numbers";
import { feature } from "@/lib/queries";
import { Examples } from "./examples";
import { LabelForm } from "./label-form";

export function FeatureDetails({ sae, index }: { sae: string; index: number }) {
  const { data, error, refetch } = useQuery(feature(sae, index));
  const [steer, watch] = [useSteer(), useWatch()];
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const name = data.label ?? `feature ${index}`;
  return (
    <Stack>
      <LabelForm card={data} />
      <Group>
        <Button size="xs" onClick={() => void steer(sae, index)}>
          Steer this
        </Button>
        <Button size="xs" variant="default" onClick={() => watch.toggle(sae, index)} loading={watch.isPending}>
          {watch.isWatched(sae, index) ? "Watch this no more" : "Watch this"}
        </Button>
        {data.neuronpedia && (
          <Anchor href={data.neuronpedia} target="_blank" rel="noreferrer">
            Neuronpedia
          </Anchor>
        )}
        {watch.isWatched(sae, index) && <Sparkline sae={sae} index={index} name={name} />}
      </Group>
      <Text size="sm">{facts(data).join(" · ")}</Text>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Tokens title="Promotes" tokens={data.promoted} />
        <Tokens title="Suppresses" tokens={data.suppressed} />
      </SimpleGrid>
      <Card withBorder component="section" aria-label="Most alike">
        <Title order={2} size="h5">
          Most alike, by direction
        </Title>
        <Group gap={6} mt="xs">
          {data.neighbours.map((other) => (
            <FeatureChip key={other.index} sae={sae} index={other.index} label={other.label} value={other.cosine} />
          ))}
        </Group>
      </Card>
      <Examples sae={sae} index={index} observed={data.observed} name={name} />
      <Anchor renderRoot={(props) => <Link to="/monitor" {...props} />} size="sm">
        To the monitor
      </Anchor>
    </Stack>
  );
}

const facts = (card: Schemas["FeatureCard"]): string[] =>
  [
    card.sae,
    `layer ${card.layer}, ${card.hook_point}`,
    card.max_act !== null && `largest activation ${short(card.max_act)}`,
    card.density !== null && `fires at ${percent(card.density)} of tokens`,
    `decoder norm ${short(card.decoder_norm)}`,
    `half the usual norm: ${short(card.strengths.half_norm)} raw`,
    card.source && `label from ${card.source}`,
  ].filter((fact): fact is string => typeof fact === "string");

const Tokens = ({ title, tokens }: { title: string; tokens: readonly Schemas["PromotedToken"][] }) => (
  <Card withBorder component="section" aria-label={title}>
    <Title order={2} size="h5">
      {title}
    </Title>
    <Table aria-label={`Tokens: ${title}`} verticalSpacing={2}>
      <Table.Tbody>
        {tokens.map(({ id, token, logit }) => (
          <Table.Tr key={id}>
            <Table.Td style={{ overflowWrap: "anywhere" }}>{JSON.stringify(token)}</Table.Td>
            <Table.Td>{short(logit)}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  </Card>
);
