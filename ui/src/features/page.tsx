/** Features: one of them whole, or ways to find those that matter: by label, by text, by two kinds of text, by strength. */
import { Button, Select, Tabs } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import { status } from "@/lib/queries";
import { ByLabel } from "./by-label";
import { ByText } from "./by-text";
import { FeatureDetails } from "./card";
import { Contrast } from "./contrast";
import { SweepPanel } from "./sweep";

const route = getRouteApi("/features");

export function FeaturesPage() {
  const search = route.useSearch();
  const { data, error, refetch } = useQuery(status);
  const [wanted, choose] = useState<string | null>(null);
  if (error) return <Failed thrown={error} retry={() => void refetch()} />;
  if (!data) return <Loading />;
  const sae =
    [search.sae, wanted].map((name) => data.saes.find(({ sae }) => sae === name)).find(Boolean) ?? data.saes[0];
  if (!sae)
    return (
      <Page title="Features">
        <Empty
          title="No SAE is attached"
          action={
            <Button component={Link} to="/saes">
              Choose an SAE
            </Button>
          }
        >
          Features are those of an attached SAE.
        </Empty>
      </Page>
    );
  if (search.index !== undefined)
    return (
      <Page
        title={`Feature ${search.index}`}
        actions={
          <Button size="xs" variant="default" renderRoot={(props) => <Link to="/features" {...props} />}>
            All features
          </Button>
        }
      >
        <FeatureDetails key={`${sae.sae} ${search.index}`} sae={search.sae ?? sae.sae} index={search.index} />
      </Page>
    );
  return (
    <Page title="Features">
      {data.saes.length > 1 && (
        <Select
          label="Of"
          data={data.saes.map(({ sae }) => sae)}
          value={sae.sae}
          onChange={choose}
          allowDeselect={false}
          maw={420}
        />
      )}
      <Tabs key={sae.sae} defaultValue="label" keepMounted>
        <Tabs.List>
          <Tabs.Tab value="label">By label</Tabs.Tab>
          <Tabs.Tab value="text">Find by text</Tabs.Tab>
          <Tabs.Tab value="contrast">Contrast two texts</Tabs.Tab>
          <Tabs.Tab value="sweep">Strength sweep</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="label" pt="sm">
          <ByLabel sae={sae} />
        </Tabs.Panel>
        <Tabs.Panel value="text" pt="sm">
          <ByText sae={sae.sae} />
        </Tabs.Panel>
        <Tabs.Panel value="contrast" pt="sm">
          <Contrast sae={sae.sae} />
        </Tabs.Panel>
        <Tabs.Panel value="sweep" pt="sm">
          <SweepPanel />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}
