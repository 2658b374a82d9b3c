/** Public SAEs for a model: layer by layer, by site, width and name, to be fetched. */
import { Button, Group, NumberInput, Pagination, Select, Stack, Table, Text, TextInput, Title } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed, Loading } from "@/components/states";
import { failed, said } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { count, short } from "@/lib/numbers";
import { client, jobs, shelf } from "@/lib/queries";
import { LayerMap } from "./layer-map";
import { known, MOST, type Facets } from "./queries";

export function Registry({ loaded }: { loaded: string | null }) {
  const models = useQuery(shelf);
  const [facets, setFacets] = useState<Omit<Facets, "model">>({});
  const [wanted, setWanted] = useState<string | null>(null);
  const [page, setPage] = useState(1);
  const shelved = models.data ?? [];
  const model = shelved.find(({ id }) => id === wanted) ?? shelved.find(({ id }) => isSame(id, loaded)) ?? null;
  const found = useQuery(known({ model: model?.id ?? "", ...facets }, MOST * (page - 1)));
  const change = (what: Partial<Facets>) => {
    setFacets({ ...facets, ...what });
    setPage(1);
  };
  return (
    <Stack gap="sm" component="section" aria-labelledby="known">
      <Title order={2} size="h4" id="known">
        Public SAEs
      </Title>
      <Group gap="sm" align="end">
        <Select
          label="For the model"
          searchable
          data={shelved.map(({ id }) => id)}
          value={model?.id ?? null}
          onChange={(id) => {
            setWanted(id);
            setFacets({});
            setPage(1);
          }}
        />
        {model && (
          <>
            <Select
              label="Site"
              clearable
              data={model.sites}
              value={facets.site ?? null}
              onChange={(site) => change({ site: (site ?? undefined) as Facets["site"] })}
            />
            <Select
              label="Width"
              clearable
              data={model.widths.map(String)}
              value={facets.width ? String(facets.width) : null}
              onChange={(width) => change({ width: width ? Number(width) : undefined })}
            />
            <NumberInput
              label="Active at a token, at most"
              hideControls
              min={0}
              max={1e9}
              value={facets.most_l0 ?? ""}
              onChange={(most) => change({ most_l0: typeof most === "number" ? most : undefined })}
            />
            <TextInput
              label="Words of its name"
              value={facets.text ?? ""}
              onChange={(event) => change({ text: event.currentTarget.value || undefined })}
            />
          </>
        )}
      </Group>
      {model && (
        <LayerMap
          layers={model.layers}
          chosen={facets.layer ?? null}
          choose={(layer) => change({ layer: layer ?? undefined })}
        />
      )}
      {found.error && <Failed thrown={found.error} retry={() => void found.refetch()} />}
      {model && !found.data && !found.error && <Loading />}
      {!model && (
        <Text>
          {loaded
            ? `No public SAE is known for ${loaded}; choose another model to see its.`
            : "Choose a model to see its SAEs."}
        </Text>
      )}
      {model && found.data && (
        <>
          <Text size="sm" role="status">
            {count(found.data.total)} of them
          </Text>
          <Rows saes={found.data.saes} />
          {found.data.total > MOST && (
            <Pagination
              total={Math.ceil(found.data.total / MOST)}
              value={page}
              onChange={setPage}
              getControlProps={(control) => ({ "aria-label": `${control} page` })}
            />
          )}
        </>
      )}
    </Stack>
  );
}

/** An id as the hub has it, and a name as the library has it. */
const isSame = (id: string, name: string | null): boolean => {
  const [a, b] = [id.toLowerCase(), name?.toLowerCase()];
  return a === b || a.split("/").at(-1) === b;
};

const Rows = ({ saes }: { saes: readonly Schemas["RegistrySae"][] }) => (
  <Table.ScrollContainer minWidth={620}>
    <Table>
      <Table.Thead>
        <Table.Tr>
          <Table.Th>SAE</Table.Th>
          <Table.Th>Layer</Table.Th>
          <Table.Th>Site</Table.Th>
          <Table.Th>Width</Table.Th>
          <Table.Th>Active at a token</Table.Th>
          <Table.Th>Get it</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {saes.map((sae) => (
          <Row key={sae.id} sae={sae} />
        ))}
      </Table.Tbody>
    </Table>
  </Table.ScrollContainer>
);

function Row({ sae }: { sae: Schemas["RegistrySae"] }) {
  const fetch = useMutation({
    mutationFn: () => told(api.POST("/api/saes", { body: { id: sae.id, revision: "main" } })),
    onSuccess: () => {
      said(`${sae.id} is being fetched.`);
      void client.invalidateQueries({ queryKey: jobs.queryKey });
    },
    onError: failed,
  });
  return (
    <Table.Tr>
      <Table.Td style={{ overflowWrap: "anywhere" }}>{sae.id}</Table.Td>
      <Table.Td>{sae.layer ?? "–"}</Table.Td>
      <Table.Td>{sae.site}</Table.Td>
      <Table.Td>{sae.width === null ? "–" : count(sae.width)}</Table.Td>
      <Table.Td>{sae.l0 === null ? "–" : short(sae.l0)}</Table.Td>
      <Table.Td>
        {sae.support === "no" ? (
          `${sae.format} is not read`
        ) : (
          <Button
            size="xs"
            variant="default"
            loading={fetch.isPending}
            onClick={() => fetch.mutate()}
            aria-label={`Fetch ${sae.id}`}
          >
            Fetch
          </Button>
        )}
      </Table.Td>
    </Table.Tr>
  );
}
