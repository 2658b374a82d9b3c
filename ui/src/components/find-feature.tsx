/** Finding a feature of an attached SAE: by the words of its label, or by its index. */
import { Combobox, Loader, Select, Stack, Text, TextInput, useCombobox } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, told, type Schemas } from "@/lib/api";
import { asFailure } from "@/lib/failure";

const MOST = 20;

interface Props {
  saes: readonly Schemas["SaeFacts"][];
  label: string;
  chosen: (sae: string, index: number) => void;
}

export function FindFeature({ saes, label, chosen }: Props) {
  const [wanted, setSae] = useState<string | null>(null);
  const [text, setText] = useState("");
  const [query] = useDebouncedValue(text.trim(), 200);
  const combobox = useCombobox({ onDropdownClose: () => combobox.resetSelectedOption() });
  const sae = saes.find(({ sae }) => sae === wanted) ?? saes[0];
  const name = sae?.sae ?? "";
  const found = useQuery({
    queryKey: ["found", name, query],
    queryFn: () => told(api.GET("/api/features/search", { params: { query: { q: query, sae: name, limit: MOST } } })),
    enabled: query !== "" && name !== "",
  });
  if (!sae) return null;
  const index = /^\d+$/.test(query) ? Number(query) : null;
  const isOutside = index !== null && index >= sae.features;
  const choose = (option: string) => {
    chosen(name, Number(option));
    setText("");
    combobox.closeDropdown();
  };
  return (
    <Stack gap={4}>
      {saes.length > 1 && (
        <Select
          size="xs"
          label="Of"
          data={saes.map(({ sae }) => sae)}
          value={name}
          onChange={setSae}
          allowDeselect={false}
        />
      )}
      <Combobox store={combobox} onOptionSubmit={choose}>
        <Combobox.Target>
          <TextInput
            size="xs"
            label={label}
            description="Its index, or words of its label"
            value={text}
            onChange={(event) => {
              setText(event.currentTarget.value);
              combobox.openDropdown();
            }}
            onFocus={() => combobox.openDropdown()}
            onBlur={() => combobox.closeDropdown()}
            rightSection={found.isFetching && <Loader size="xs" />}
            error={
              isOutside
                ? `This SAE has features 0 to ${sae.features - 1}.`
                : found.error && asFailure(found.error).message
            }
          />
        </Combobox.Target>
        <Combobox.Dropdown hidden={query === "" || isOutside}>
          <Combobox.Options mah={260} style={{ overflowY: "auto" }} aria-label="Features">
            {index !== null && !isOutside && <Combobox.Option value={String(index)}>feature {index}</Combobox.Option>}
            {found.data?.features
              .filter((feature) => feature.index !== index)
              .map((feature) => (
                <Combobox.Option key={feature.index} value={String(feature.index)}>
                  {feature.label}{" "}
                  <Text span size="xs">
                    {feature.index}
                  </Text>
                </Combobox.Option>
              ))}
            {index === null && found.data?.total === 0 && <Combobox.Empty>No label has these words</Combobox.Empty>}
          </Combobox.Options>
        </Combobox.Dropdown>
      </Combobox>
    </Stack>
  );
}
