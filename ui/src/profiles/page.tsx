/** Profiles: what is saved, which one is active, and taking in what others have saved. */
import { Button, Group, Pagination, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedValue, useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import { PAGE, profiles } from "@/lib/queries";
import { ProfileCard } from "./entry";
import { Import } from "./import";
import { New } from "./new";

export function ProfilesPage() {
  const [typed, setTyped] = useState("");
  const [search] = useDebouncedValue(typed.trim(), 200);
  const [page, setPage] = useState(1);
  const [isImporting, importing] = useDisclosure(false);
  const { data, error, refetch } = useQuery(profiles(search, (page - 1) * PAGE));
  const pages = Math.ceil((data?.total ?? 0) / PAGE);
  return (
    <Page
      title="Profiles"
      actions={
        <>
          <Button size="xs" variant="default" onClick={importing.toggle} aria-expanded={isImporting}>
            Import
          </Button>
          <New />
        </>
      }
    >
      {isImporting && <Import done={importing.close} />}
      <TextInput
        label="Search"
        description="Names, descriptions and tags"
        value={typed}
        onChange={(event) => {
          setTyped(event.currentTarget.value);
          setPage(1);
        }}
        maw={420}
      />
      {error && <Failed thrown={error} retry={() => void refetch()} />}
      {!data && !error && <Loading />}
      {data && (
        <Text size="sm" role="status">
          {data.total} {data.total === 1 ? "profile" : "profiles"}
        </Text>
      )}
      {data?.total === 0 &&
        (search ? (
          <Empty title={`No profile is like “${search}”`} />
        ) : (
          <Empty title="No profile yet">Turn knobs in the playground and save them, or import a file.</Empty>
        ))}
      <Stack gap="xs">
        {data?.profiles.map((entry) => (
          <ProfileCard key={entry.name} entry={entry} />
        ))}
      </Stack>
      {pages > 1 && (
        <Group>
          <Pagination
            total={pages}
            value={page}
            onChange={setPage}
            getControlProps={(control) => ({ "aria-label": `${control} page` })}
            getItemProps={(number) => ({ "aria-label": `Page ${number}` })}
          />
        </Group>
      )}
    </Page>
  );
}
