/** A profile beside another one: what differs. */
import { Select, Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Failed, Loading } from "@/components/states";
import type { Schemas } from "@/lib/api";
import { profile, profiles } from "@/lib/queries";
import { differences } from "./differences";

export function Compare({ name }: { name: string }) {
  const [search, setSearch] = useState("");
  const [other, setOther] = useState<string | null>(null);
  const found = useQuery(profiles(search === other ? "" : search)).data?.profiles ?? [];
  const names = [...new Set([...found.map((entry) => entry.name), ...(other ? [other] : [])])];
  return (
    <Stack>
      <Select
        label="With"
        placeholder="Choose a profile"
        searchable
        data={names.filter((found) => found !== name)}
        value={other}
        onChange={setOther}
        onSearchChange={setSearch}
        nothingFoundMessage="No other profile is called so"
        data-autofocus
      />
      {other && <Sides name={name} other={other} />}
    </Stack>
  );
}

function Sides({ name, other }: { name: string; other: string }) {
  const [one, two] = [useQuery(profile(name)), useQuery(profile(other))];
  const error = one.error ?? two.error;
  if (error) return <Failed thrown={error} />;
  if (!one.data || !two.data) return <Loading />;
  const [before, after] = [one.data, two.data].map(({ profile }) => (profile as Schemas["Profile"]).features ?? []);
  const found = differences(before!, after!);
  if (found.length === 0) return <Text>They steer the same features alike.</Text>;
  return (
    <Table.ScrollContainer minWidth={420} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table aria-label="Differences">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Feature</Table.Th>
            <Table.Th>{name}</Table.Th>
            <Table.Th>{other}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {found.map(({ sae, index, label, before, after }) => (
            <Table.Tr key={`${sae} ${index}`}>
              <Table.Td>{[label, index, sae].filter((part) => part !== null).join(" · ")}</Table.Td>
              <Table.Td>{before ?? "not there"}</Table.Td>
              <Table.Td>{after ?? "not there"}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
