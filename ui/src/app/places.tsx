/** The places of the menu: pages that are there. */
import { IconAdjustments, IconBulb, IconCpu } from "@tabler/icons-react";

export const PLACES = [
  { to: "/", label: "Playground", icon: IconAdjustments },
  { to: "/models", label: "Models", icon: IconCpu },
  { to: "/saes", label: "SAEs", icon: IconBulb },
] as const;
