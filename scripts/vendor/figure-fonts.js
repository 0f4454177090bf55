/* The figures' font as `data:` addresses by what it covers, so that a saved SVG carries what its texts need. */

import cyrillic400 from "@fontsource/inter/files/inter-cyrillic-400-normal.woff2";
import cyrillic600 from "@fontsource/inter/files/inter-cyrillic-600-normal.woff2";
import greek400 from "@fontsource/inter/files/inter-greek-400-normal.woff2";
import greek600 from "@fontsource/inter/files/inter-greek-600-normal.woff2";
import latin400 from "@fontsource/inter/files/inter-latin-400-normal.woff2";
import latin600 from "@fontsource/inter/files/inter-latin-600-normal.woff2";
import latinExt400 from "@fontsource/inter/files/inter-latin-ext-400-normal.woff2";
import latinExt600 from "@fontsource/inter/files/inter-latin-ext-600-normal.woff2";
import { default as ranges } from "@fontsource/inter/unicode.json";

const FILES = {
  latin: [latin400, latin600],
  "latin-ext": [latinExt400, latinExt600],
  greek: [greek400, greek600],
  cyrillic: [cyrillic400, cyrillic600],
};

/** `{weight, range, address}` of each part. */
export const FONT_PARTS = Object.entries(FILES).flatMap(([part, files]) =>
  files.map((address, i) => ({ weight: [400, 600][i], range: ranges[part], address })),
);
