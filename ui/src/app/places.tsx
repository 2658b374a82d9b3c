/** The places of the menu, which is every page. */
import {
  IconActivity,
  IconAdjustments,
  IconBookmarks,
  IconBulb,
  IconCpu,
  IconListSearch,
  IconServer,
  IconSettings,
} from "@tabler/icons-react";

export const PLACES = [
  { to: "/", label: "Playground", icon: IconAdjustments },
  { to: "/models", label: "Models", icon: IconCpu },
  { to: "/saes", label: "SAEs", icon: IconBulb },
  { to: "/monitor", label: "Monitor", icon: IconActivity },
  { to: "/features", label: "Features", icon: IconListSearch, IconServer, IconSettings },
  { to: "/profiles", label: "Profiles", icon: IconBookmarks },
  { to: "/server", label: "Server", icon: IconServer },
  { to: "/settings", label: "Settings", icon: IconSettings },
] as const;
