// The ground of the world, and how one walks on it: the same rule as the server's, so that movement can be predicted.
//
// A walker is a square to the ground. It is swept first east or west, then north or south, stops a hair before what is solid and
// so slides along it. Everything outside the map is solid.

export const WALKER_RADIUS_M = 0.3;
const GAP_M = 1 / 1024;

// From what `/play/map.json` says: `{ open: true, side_m }`, or `{ width, height, tile_m, solid, kinds, kind_names }` and how often
// that lies side by side: `columns` and `rows`. Where two copies meet, the outermost tiles of both are free.
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
  constructor({ width, height, tile_m: tileM, solid, kinds = [], kind_names: kindNames = [], columns = 1, rows = 1 }) {
    if (!(width > 0 && height > 0 && tileM > 0) || solid?.length !== width * height) {
      throw new Error(`map.json: ${width} × ${height} tiles of ${tileM} m with ${solid?.length} entries in solid`);
    }
    this.open = false;
    this.width = width;
    this.height = height;
    this.tileM = tileM;
    // Tiles of all copies.
    this.wide = width * columns;
    this.deep = height * rows;
    this.widthM = this.wide * tileM;
    this.depthM = this.deep * tileM;
    this.solid = Uint8Array.from(solid, (tile) => (tile ? 1 : 0));
    this.kinds = kinds.length === solid.length ? kinds : [];
    this.kindNames = kindNames;
  }

  isSolid(x, z) {
    if (x < 0 || z < 0 || x >= this.wide || z >= this.deep) return true;
    return !this.isJoint(x, z) && this.solid[this.inCopy(x, z)] === 1;
  }

  // Where a tile of any copy stands in the lists.
  inCopy(x, z) {
    return (z % this.height) * this.width + (x % this.width);
  }

  // Whether a tile is an outermost one of its copy, and not of the whole.
  isJoint(x, z) {
    const [inX, inZ] = [x % this.width, z % this.height];
    const rim = inX === 0 || inZ === 0 || inX === this.width - 1 || inZ === this.height - 1;
    const outer = x === 0 || z === 0 || x === this.wide - 1 || z === this.deep - 1;
    return rim && !outer;
  }

  // The name of a tile's kind; `ground` or `wall` where the map does not say.
  kind(x, z) {
    if (x >= 0 && z >= 0 && x < this.wide && z < this.deep && this.isJoint(x, z)) return 'ground';
    const kind = this.kinds[this.inCopy(x, z)];
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
