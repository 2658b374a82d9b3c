/** The places of the menu. */
import {
  IconActivity,
  IconAdjustments,
  IconBulb,
  IconCpu,
  IconListSearch,
  IconServer,
  IconSettings,
  IconUsers,
} from "@tabler/icons-react";

export const PLACES = [
  { to: "/", label: "Playground", icon: IconAdjustments },
  { to: "/models", label: "Models", icon: IconCpu },
  { to: "/saes", label: "SAEs", icon: IconBulb },
  { to: "/features", label: "Features", icon: IconListSearch },
  { to: "/monitor", label: "Monitor", icon: IconActivity },
  { to: "/profiles", label: "Profiles", icon: IconUsers },
  { to: "/server", label: "Server", icon: IconServer },
  { to: "/settings", label: "Settings", icon: IconSettings },
] as const;
