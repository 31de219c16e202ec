// The ground of the world, and how one walks on it: the same rule as the server's, so that movement can be predicted.
//
// A walker is a square to the ground. It is swept first east or west, then north or south, stops a hair before what is solid and
// so slides along it. Everything outside the map is solid.

export const WALKER_RADIUS_M = 0.3;
const GAP_M = 1 / 1024;

// From what `/play/map.json` says: `{ open: true, side_m }`, or `{ width, height, tile_m, solid, kinds, kind_names }`.
export function groundFrom(map) {
  if (map.open === true) {
    if (!(map.side_m > 1)) throw new Error(`map.json: side_m is ${map.side_m}`);
    return new OpenGround(map.side_m);
  }
  return new TileGround(map);
}

export class OpenGround {
  constructor(sideM) {
    this.open = true;
    this.widthM = sideM;
    this.depthM = sideM;
  }

  walk([x, z], [dx, dz]) {
    const clamp = (value) => Math.min(Math.max(value, WALKER_RADIUS_M), this.widthM - WALKER_RADIUS_M);
    return [clamp(x + dx), clamp(z + dz)];
  }
}

export class TileGround {
  constructor({ width, height, tile_m: tileM, solid, kinds = [], kind_names: kindNames = [] }) {
    if (!(width > 0 && height > 0 && tileM > 0) || solid?.length !== width * height) {
      throw new Error(`map.json: ${width} × ${height} tiles of ${tileM} m with ${solid?.length} entries in solid`);
    }
    this.open = false;
    this.width = width;
    this.height = height;
    this.tileM = tileM;
    this.widthM = width * tileM;
    this.depthM = height * tileM;
    this.solid = Uint8Array.from(solid, (tile) => (tile ? 1 : 0));
    this.kinds = kinds.length === solid.length ? kinds : [];
    this.kindNames = kindNames;
  }

  isSolid(x, z) {
    return x < 0 || z < 0 || x >= this.width || z >= this.height || this.solid[z * this.width + x] === 1;
  }

  // The name of a tile's kind; `ground` or `wall` where the map does not say.
  kind(x, z) {
    const kind = this.kinds[z * this.width + x];
    if (typeof kind === 'string') return kind;
    return this.kindNames[kind] ?? (this.isSolid(x, z) ? 'wall' : 'ground');
  }

  walk([x, z], [dx, dz]) {
    const east = this.slide(x, dx, z, (along, across) => this.isSolid(along, across));
    return [east, this.slide(z, dz, east, (along, across) => this.isSolid(across, along))];
  }

  slide(from, by, across, isSolid) {
    const tile = (metres) => Math.floor(metres / this.tileM);
    const first = tile(across - WALKER_RADIUS_M);
    const last = tile(across + WALKER_RADIUS_M);
    const blocked = (along) => {
      for (let at = first; at <= last; at++) if (isSolid(along, at)) return true;
      return false;
    };
    const to = from + by;
    if (by > 0) {
      const end = tile(to + WALKER_RADIUS_M);
      for (let along = tile(from + WALKER_RADIUS_M) + 1; along <= end; along++) {
        if (blocked(along)) return Math.max(from, along * this.tileM - WALKER_RADIUS_M - GAP_M);
      }
    } else if (by < 0) {
      const end = tile(to - WALKER_RADIUS_M);
      for (let along = tile(from - WALKER_RADIUS_M) - 1; along >= end; along--) {
        if (blocked(along)) return Math.min(from, (along + 1) * this.tileM + WALKER_RADIUS_M + GAP_M);
      }
    }
    return to;
  }
}
