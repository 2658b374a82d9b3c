/** How a feature fired in what was asked of this server, and the requests in which it did. */
import { Anchor, Card, Group, List, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Histogram } from "@/components/histogram";
import { api, told, type Schemas } from "@/lib/api";
import { clock, percent, short } from "@/lib/numbers";

interface Props {
  sae: string;
  index: number;
  name: string;
  observed: Schemas["FeatureStatistics"] | null;
}

const MOST = 10;

export function Examples({ sae, index, name, observed }: Props) {
  const query = { sae, feature: index, limit: MOST };
  const requests = useQuery({
    queryKey: ["requests", "of", sae, index],
    queryFn: async () => (await told(api.GET("/api/requests", { params: { query } }))).requests,
  }).data;
  const edges = useQuery({
    queryKey: ["statistics"],
    queryFn: () => told(api.GET("/api/monitor/statistics")),
  }).data?.edges;
  return (
    <Card withBorder component="section" aria-label="Observed here">
      <Title order={2} size="h5">
        Observed here
      </Title>
      {!observed && <Text size="sm">It was not watched yet: watch it, and ask something.</Text>}
      {observed && (
        <Group mt="xs">
          <Text size="sm">
            Fires at {percent(observed.frequency)} of {observed.tokens} tokens, {short(observed.mean_fired)} in the mean
            {observed.largest && `, at most ${short(observed.largest.value)}`}
          </Text>
          {edges && <Histogram counts={observed.histogram} edges={edges} name={name} />}
        </Group>
      )}
      {requests && requests.length > 0 && (
        <List size="sm" mt="xs" spacing="sm" aria-label="Requests in which it was seen">
          {requests.map(({ id, began, client, profile }) => (
            <List.Item key={id}>
              <Anchor size="sm" renderRoot={(props) => <Link to="/monitor" search={{ request: id }} {...props} />}>
                {clock(began)} by {client}
                {profile && `, steered by ${profile}`}
              </Anchor>
            </List.Item>
          ))}
        </List>
      )}
    </Card>
  );
}
