/* The two programs of the link graph: curves for links, glyphs for nodes. Lengths are CSS pixels; the plot's own are scaled by the zoom. */

const VIEW = `#version 300 es
precision highp float;
uniform vec2 size2;
uniform vec2 shift;
uniform vec2 zoom;
uniform float density;
uniform float radius;
vec4 onPage(vec2 p) { return vec4(2.0 * p.x / size2.x - 1.0, 1.0 - 2.0 * p.y / size2.y, 0.0, 1.0); }
`;

/**
 * A ribbon along the cubic that leaves and arrives upright, half a pixel wider than the line for its soft edge. All ribbons are one strip,
 * whose vertices look up their link by their number: two texels of `links`, of which the first holds the ends, the second the width and the
 * colour. See `NODE_SHADERS` for why they aren't instances.
 */
export const LINK_SHADERS = Object.freeze([
  `${VIEW}
precision highp usampler2D;
uniform usampler2D links;
uniform int skipped;
uniform int segments;
out vec4 paint;
out float across;
out float halfWidth;
void main() {
  int perLink = 2 * segments + 4;
  int number = 2 * (skipped + gl_VertexID / perLink);
  int corner = clamp(gl_VertexID % perLink - 1, 0, 2 * segments + 1);
  int row = textureSize(links, 0).x;
  vec4 ends = uintBitsToFloat(texelFetch(links, ivec2(number % row, number / row), 0));
  uvec4 look = texelFetch(links, ivec2((number + 1) % row, (number + 1) / row), 0);
  vec2 a = ends.xy * zoom + shift;
  vec2 b = ends.zw * zoom + shift;
  float bend = (a.y - b.y) * 0.42;
  vec2 c = a - vec2(0.0, bend);
  vec2 d = b + vec2(0.0, bend);
  float t = float(corner / 2) / float(segments);
  float s = 1.0 - t;
  vec2 p = s * s * s * a + 3.0 * s * s * t * c + 3.0 * s * t * t * d + t * t * t * b;
  vec2 along = s * s * (c - a) + 2.0 * s * t * (d - c) + t * t * (b - d);
  float length2 = dot(along, along);
  vec2 normal = length2 > 0.0 ? vec2(-along.y, along.x) * inversesqrt(length2) : vec2(1.0, 0.0);
  halfWidth = 0.5 * uintBitsToFloat(look.x);
  across = (corner % 2 == 0 ? 1.0 : -1.0) * (halfWidth + 0.75 / density);
  paint = vec4(uvec4(look.y, look.y >> 8u, look.y >> 16u, look.y >> 24u) & 255u) / 255.0;
  gl_Position = onPage(p + normal * across);
}`,
  `#version 300 es
precision highp float;
uniform float density;
in vec4 paint;
in float across;
in float halfWidth;
out vec4 result;
void main() {
  float cover = clamp((halfWidth - abs(across)) * density + 0.5, 0.0, 1.0);
  result = paint * cover * min(1.0, max(2.0 * halfWidth * density, 0.35));
}`,
]);

/**
 * Circle, square or diamond by its distance field, with a line along its border. A glyph is one point: software renderers draw each
 * instance of instanced quads by itself, which for 10,000 nodes takes longer than everything else in a frame.
 */
export const NODE_SHADERS = Object.freeze([
  `${VIEW}
in vec2 place;
in float kind;
in vec2 size;
in float stroke;
in vec4 fill;
in vec4 line;
flat out float span;
flat out float shape;
flat out float reach;
flat out float border;
flat out vec4 inner;
flat out vec4 outer;
void main() {
  reach = size.x * radius + size.y;
  border = stroke;
  shape = kind;
  inner = fill;
  outer = line;
  span = reach * 1.05 + stroke + 1.0;
  gl_PointSize = 2.0 * span * density;
  gl_Position = onPage(place * zoom + shift);
}`,
  `#version 300 es
precision highp float;
uniform float density;
flat in float span;
flat in float shape;
flat in float reach;
flat in float border;
flat in vec4 inner;
flat in vec4 outer;
out vec4 result;
void main() {
  vec2 p = abs(2.0 * gl_PointCoord - 1.0) * span;
  float away = shape < 0.5 ? length(p) - reach : shape < 1.5 ? max(p.x, p.y) - 0.9 * reach : (p.x + p.y - 1.05 * reach) * 0.7071;
  float inside = clamp(0.5 - away * density, 0.0, 1.0);
  float edge = clamp((0.5 * border - abs(away)) * density + 0.5, 0.0, 1.0);
  result = inner * inside * (1.0 - edge * outer.a) + outer * edge;
}`,
]);

/** A linked program. Throws with the driver's words. */
export function link(gl, sources) {
  const program = gl.createProgram();
  [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((type, i) => {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, sources[i]);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  });
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`${gl.getProgramInfoLog(program)} ${logs.join(" ")}`);
  }
  return program;
}
