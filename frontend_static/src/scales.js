/* Numbers to lengths and colours. Pure; colours are [r, g, b] from 0 to 255 until the last step. */

export const THEMES = Object.freeze({
  light: Object.freeze({
    surface: [255, 255, 255],
    text: [28, 27, 25],
    negative: [
      [226, 207, 232],
      [178, 139, 194],
      [131, 72, 151],
      [88, 22, 106],
    ],
    positive: [
      [204, 232, 203],
      [127, 191, 133],
      [52, 140, 76],
      [5, 92, 44],
    ],
    activation: [
      [255, 255, 255],
      [253, 226, 194],
      [253, 178, 106],
      [241, 121, 34],
    ],
  }),
  dark: Object.freeze({
    surface: [30, 31, 34],
    text: [236, 234, 229],
    negative: [
      [74, 60, 82],
      [126, 90, 143],
      [182, 133, 203],
      [226, 190, 240],
    ],
    positive: [
      [50, 76, 58],
      [66, 122, 84],
      [98, 180, 120],
      [170, 232, 184],
    ],
    activation: [
      [30, 31, 34],
      [84, 56, 26],
      [142, 84, 24],
      [196, 112, 24],
    ],
  }),
});

const FULL_SHARE = 0.4;

/** Linear map from [d0, d1] to [r0, r1]. */
export function linear([d0, d1], [r0, r1]) {
  const slope = d1 === d0 ? 0 : (r1 - r0) / (d1 - d0);
  return (value) => r0 + (value - d0) * slope;
}

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** Stroke width in pixels of a link with this share of its target's input: square root, 0 to `widest`. */
export function strokeWidth(share, widest = 3.2) {
  return Math.max(0.25, Math.sqrt(clamp(Math.abs(share), 0, 1)) * widest);
}

/** Colour of a signed share: purple against, green for, saturated from 40 % on. */
export function signedColour(share, theme) {
  const ramp = share < 0 ? theme.negative : theme.positive;
  return along(ramp, clamp(Math.abs(share) / FULL_SHARE, 0, 1) ** 0.7);
}

/** Background of a token with this activation. */
export function activationColour(activation, low, high, theme) {
  const span = high - Math.min(low, 0) || 1;
  return along(theme.activation, clamp((activation - Math.min(low, 0)) / span, 0, 1));
}

function along(ramp, t) {
  const at = t * (ramp.length - 1);
  const from = Math.min(ramp.length - 2, Math.floor(at));
  return mix(ramp[from], ramp[from + 1], at - from);
}

export function mix(a, b, t) {
  return a.map((value, i) => Math.round(value + (b[i] - value) * t));
}

export function css([r, g, b], alpha = 1) {
  return alpha === 1 ? `rgb(${r} ${g} ${b})` : `rgb(${r} ${g} ${b} / ${alpha})`;
}

/** Contrast ratio of two colours (WCAG 2.2): 1 to 21, text wants 4.5. */
export function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(colour) {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Black or white, whichever reads better on this colour. */
export function textOn(colour) {
  const [black, white] = [
    [0, 0, 0],
    [255, 255, 255],
  ];
  return contrast(colour, black) >= contrast(colour, white) ? black : white;
}
