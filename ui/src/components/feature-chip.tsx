/** A feature as a chip: its name and how strongly it fires, and in its menu what can be done with it. */
import { Badge, Menu, UnstyledButton } from "@mantine/core";
import { IconAdjustments, IconEye, IconEyeOff, IconFileInfo } from "@tabler/icons-react";
import { Link } from "@tanstack/react-router";
import { useSteer, useWatch } from "@/lib/knobs";
import { short } from "@/lib/numbers";

interface Props {
  sae: string;
  index: number;
  label?: string | null;
  value?: number | null;
}

export function FeatureChip({ sae, index, label, value }: Props) {
  const steer = useSteer();
  const watch = useWatch();
  const isWatched = watch.isWatched(sae, index);
  const name = label ?? `feature ${index}`;
  return (
    <Menu position="bottom-start" withinPortal>
      <Menu.Target>
        <UnstyledButton maw="100%">
          <Badge variant="default" size="lg" tt="none" fw={500} maw="100%" title={`${name} (${index} of ${sae})`}>
            {name}
            {value != null && ` · ${short(value)}`}
          </Badge>
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item leftSection={<IconAdjustments size={16} aria-hidden />} onClick={() => void steer(sae, index)}>
          Steer this
        </Menu.Item>
        <Menu.Item
          leftSection={isWatched ? <IconEyeOff size={16} aria-hidden /> : <IconEye size={16} aria-hidden />}
          onClick={() => watch.toggle(sae, index)}
        >
          {isWatched ? "Watch this no more" : "Watch this"}
        </Menu.Item>
        <Menu.Item
          leftSection={<IconFileInfo size={16} aria-hidden />}
          renderRoot={(props) => <Link to="/features" search={{ sae, index }} {...props} />}
        >
          Open its page
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
