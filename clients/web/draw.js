// Draws the world on a canvas: ground, ore, items, characters, names, what is said.
//
// The picture is centred on the own character. Ground is drawn once per block of tiles and kept; everything else every time.

const BLOCK_TILES = 16;
const TILE_PX = 32;
const BLOCKS_MAX = 256;
const OPEN_TILE_M = 2;
export const KIND = Object.freeze({ character: 1, ore: 2, item: 3, animal: 4 });

const GROUND = {
  ground: ['#8fb573', '#8cb270'],
  grass: ['#8fb573', '#8cb270'],
  meadow: ['#9dbf78', '#9abc75'],
  forest: ['#5f8f5c', '#5c8b59'],
  path: ['#d3bf94', '#d0bb90'],
  sand: ['#e2d2a2', '#dccb99'],
  floor: ['#c4a582', '#c0a17d'],
  water: ['#5a9bc0', '#5899be'],
  rock: ['#80868a', '#787e82'],
  wall: ['#6f665f', '#686059'],
  bridge: ['#a9855c', '#a37f56'],
  tree: ['#6f9a63', '#6b965f'],
  field: ['#c2b567', '#bfb164'],
  roof: ['#a8584c', '#a25247'],
  building: ['#8c6450', '#845d4a'],
};
const COAT = ['#9c6b3f', '#8a5f3c', '#b18252'];
const ORE = ['#c9814a', '#aebac4', '#e0b64a', '#6cc0c8', '#b77fd0', '#7fbf6a'];

export const oreColour = (variant) => ORE[variant % ORE.length];

// A number from 0 to 1 that looks random and is always the same for the same input.
function noise(a, b = 0) {
  let h = Math.imul(a | 0, 0x9e3779b1) ^ Math.imul((b | 0) + 0x7f4a7c15, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 2 ** 32;
}

const number = (id) => (typeof id === 'bigint' ? Number(BigInt.asUintN(32, id)) : id % 2 ** 32);

export class Drawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d', { alpha: false });
    this.blocks = new Map();
    this.ground = undefined;
    this.zoom = 1;
    this.centre = [0, 0];
  }

  show(ground) {
    this.ground = ground;
    this.blocks.clear();
  }

  // Pixels of the picture per metre: about 34 m fit in the shorter side.
  get scale() {
    return (Math.min(this.canvas.width, this.canvas.height) / 34) * this.zoom;
  }

  // A point of the window as metres of the world.
  toWorld(clientX, clientY) {
    const ratio = this.canvas.width / this.canvas.clientWidth;
    return [
      this.centre[0] + (clientX * ratio - this.canvas.width / 2) / this.scale,
      this.centre[1] + (clientY * ratio - this.canvas.height / 2) / this.scale,
    ];
  }

  // `scene`: { centre, self, others, target, says, now }; positions in metres.
  draw(scene) {
    const { canvas, context } = this;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = '#39424a';
    context.fillRect(0, 0, width, height);
    if (!this.ground) return;
    this.centre = scene.centre;
    const { scale } = this;
    context.setTransform(scale, 0, 0, scale, width / 2 - scene.centre[0] * scale, height / 2 - scene.centre[1] * scale);
    this.drawGround(width / scale / 2, height / scale / 2);
    if (scene.target) this.drawTarget(scene.target, scene.now);
    const shown = scene.self ? [...scene.others, scene.self] : scene.others;
    shown.sort((a, b) => layer(a) - layer(b) || a.z - b.z);
    for (const one of shown) {
      context.globalAlpha = Math.min(1, (scene.now - one.enteredAt) / 200);
      if (one.kind === KIND.ore) this.drawOre(one);
      else if (one.kind === KIND.item) this.drawItem(one, scene.now);
      else if (one.kind === KIND.animal) this.drawAnimal(one);
      else this.drawCharacter(one);
    }
    context.globalAlpha = 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (const one of shown) if (one.name) this.drawName(one);
    for (const one of shown) this.drawSaying(one, scene);
  }

  drawGround(halfWidth, halfHeight) {
    const { context, ground } = this;
    const tileM = ground.open ? OPEN_TILE_M : ground.tileM;
    const blockM = BLOCK_TILES * tileM;
    const [cx, cz] = this.centre;
    const columns = Math.ceil(ground.widthM / blockM);
    const rows = Math.ceil(ground.depthM / blockM);
    const from = [Math.max(0, Math.floor((cx - halfWidth) / blockM)), Math.max(0, Math.floor((cz - halfHeight) / blockM))];
    const to = [Math.min(columns - 1, Math.floor((cx + halfWidth) / blockM)), Math.min(rows - 1, Math.floor((cz + halfHeight) / blockM))];
    context.imageSmoothingEnabled = true;
    context.save();
    context.beginPath();
    context.rect(0, 0, ground.widthM, ground.depthM);
    context.clip();
    // A hair of overlap hides the seams between blocks.
    const seam = 0.02;
    for (let row = from[1]; row <= to[1]; row++) {
      for (let column = from[0]; column <= to[0]; column++) {
        context.drawImage(this.block(column, row, tileM), column * blockM, row * blockM, blockM + seam, blockM + seam);
      }
    }
    context.restore();
  }

  block(column, row, tileM) {
    const key = `${column} ${row}`;
    let block = this.blocks.get(key);
    if (block) return block;
    if (this.blocks.size >= BLOCKS_MAX) this.blocks.clear();
    block = document.createElement('canvas');
    block.width = block.height = BLOCK_TILES * TILE_PX;
    const context = block.getContext('2d');
    for (let z = 0; z < BLOCK_TILES; z++) {
      for (let x = 0; x < BLOCK_TILES; x++) {
        context.save();
        context.translate(x * TILE_PX, z * TILE_PX);
        drawTile(context, this.ground, column * BLOCK_TILES + x, row * BLOCK_TILES + z);
        context.restore();
      }
    }
    this.blocks.set(key, block);
    return block;
  }

  drawTarget([x, z], now) {
    const { context } = this;
    context.strokeStyle = 'rgb(255 255 255 / 80%)';
    context.lineWidth = 0.07;
    context.beginPath();
    context.arc(x, z, 0.35 + 0.08 * Math.sin(now / 150), 0, 2 * Math.PI);
    context.stroke();
  }

  drawCharacter({ x, z, yaw, entity, own }) {
    const { context } = this;
    const angle = (yaw / 256) * 2 * Math.PI;
    const hue = noise(number(entity)) * 360;
    context.fillStyle = 'rgb(0 0 0 / 22%)';
    context.beginPath();
    context.ellipse(x + 0.06, z + 0.12, 0.4, 0.34, 0, 0, 2 * Math.PI);
    context.fill();
    if (own) {
      context.strokeStyle = 'rgb(255 255 255 / 90%)';
      context.lineWidth = 0.07;
      context.beginPath();
      context.arc(x, z, 0.52, 0, 2 * Math.PI);
      context.stroke();
    }
    context.save();
    context.translate(x, z);
    context.rotate(angle);
    context.fillStyle = `hsl(${hue} 45% 62%)`;
    context.beginPath();
    context.moveTo(0.56, 0);
    context.lineTo(0.25, 0.24);
    context.lineTo(0.25, -0.24);
    context.fill();
    context.fillStyle = `hsl(${hue} 52% 45%)`;
    context.strokeStyle = `hsl(${hue} 45% 25%)`;
    context.lineWidth = 0.05;
    context.beginPath();
    context.arc(0, 0, 0.36, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    context.fillStyle = `hsl(${(hue + 40) % 360} 30% 78%)`;
    context.beginPath();
    context.arc(0.03, 0, 0.19, 0, 2 * Math.PI);
    context.fill();
    context.restore();
  }

  drawAnimal({ x, z, yaw, variant }) {
    const { context } = this;
    const coat = COAT[(variant ?? 0) % COAT.length];
    const ellipse = (px, pz, long, wide) => {
      context.beginPath();
      context.ellipse(px, pz, long, wide, 0, 0, 2 * Math.PI);
      context.fill();
    };
    context.fillStyle = 'rgb(0 0 0 / 20%)';
    ellipse(x + 0.05, z + 0.12, 0.46, 0.34);
    context.save();
    context.translate(x, z);
    context.rotate((yaw / 256) * 2 * Math.PI);
    context.fillStyle = coat;
    ellipse(0, 0, 0.46, 0.2);
    ellipse(0.5, 0, 0.19, 0.12);
    context.fillStyle = 'rgb(255 248 236 / 85%)';
    ellipse(-0.42, 0, 0.08, 0.08);
    context.fillStyle = '#4c3524';
    ellipse(0.44, 0.13, 0.08, 0.04);
    ellipse(0.44, -0.13, 0.08, 0.04);
    context.restore();
  }

  drawOre({ x, z, entity, variant, left }) {
    const { context } = this;
    const seed = number(entity);
    const colour = left === 0 ? '#7d7f80' : oreColour(variant);
    context.fillStyle = 'rgb(0 0 0 / 20%)';
    context.beginPath();
    context.ellipse(x + 0.05, z + 0.2, 0.75, 0.45, 0, 0, 2 * Math.PI);
    context.fill();
    for (let i = 0; i < 5; i++) {
      const angle = noise(seed, i) * 2 * Math.PI;
      const far = 0.42 * noise(seed, i + 9);
      const size = 0.22 + 0.2 * noise(seed, i + 19);
      const px = x + Math.cos(angle) * far;
      const pz = z + Math.sin(angle) * far * 0.7;
      context.fillStyle = '#676a6c';
      polygon(context, px, pz, size * 1.35, 6, noise(seed, i + 29) * 3);
      context.fillStyle = colour;
      polygon(context, px - 0.03, pz - 0.06, size * 0.75, 4 + (i % 2), noise(seed, i + 39) * 3);
      if (left !== 0) {
        context.fillStyle = 'rgb(255 255 255 / 35%)';
        polygon(context, px - 0.07, pz - 0.12, size * 0.28, 3, noise(seed, i + 49) * 3);
      }
    }
  }

  drawItem({ x, z, variant, entity }, now) {
    const { context } = this;
    const lift = 0.06 * Math.sin(now / 400 + noise(number(entity)) * 6);
    context.fillStyle = 'rgb(0 0 0 / 25%)';
    context.beginPath();
    context.ellipse(x, z + 0.18, 0.22, 0.1, 0, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = oreColour(variant);
    context.strokeStyle = 'rgb(255 255 255 / 85%)';
    context.lineWidth = 0.04;
    polygon(context, x, z - 0.05 - lift, 0.24, 4, 0, true);
  }

  toScreen(x, z) {
    return [
      (x - this.centre[0]) * this.scale + this.canvas.width / 2,
      (z - this.centre[1]) * this.scale + this.canvas.height / 2,
    ];
  }

  drawName({ x, z, name, own }) {
    const { context } = this;
    const ratio = this.canvas.width / this.canvas.clientWidth;
    const [px, pz] = this.toScreen(x, z - 0.62);
    context.font = `${own ? 600 : 500} ${12.5 * ratio}px system-ui, sans-serif`;
    context.textAlign = 'center';
    context.textBaseline = 'bottom';
    context.lineJoin = 'round';
    context.lineWidth = 3 * ratio;
    context.strokeStyle = 'rgb(20 26 24 / 75%)';
    context.strokeText(name, px, pz);
    context.fillStyle = own ? '#ffffff' : '#eef2ea';
    context.fillText(name, px, pz);
  }

  drawSaying({ x, z, name }, { says, now }) {
    const said = says.get(name);
    if (!said || !name) return;
    const { context } = this;
    const ratio = this.canvas.width / this.canvas.clientWidth;
    const [px, pz] = this.toScreen(x, z - 0.62);
    const text = said.text.length > 48 ? `${said.text.slice(0, 47)}…` : said.text;
    context.globalAlpha = Math.max(0, Math.min(1, (said.until - now) / 500));
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 16 * ratio;
    const height = 22 * ratio;
    const top = pz - 18 * ratio - height;
    context.fillStyle = 'rgb(255 255 255 / 94%)';
    context.beginPath();
    context.roundRect(px - width / 2, top, width, height, 8 * ratio);
    context.fill();
    context.fillStyle = '#1d2422';
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    context.fillText(text, px, top + height / 2);
    context.globalAlpha = 1;
  }
}

function layer({ kind, own }) {
  if (kind === KIND.ore) return 0;
  if (kind === KIND.item) return 1;
  if (kind === KIND.animal) return 2;
  return own ? 4 : 3;
}

function polygon(context, x, z, radius, corners, turn, outline = false) {
  context.beginPath();
  for (let i = 0; i < corners; i++) {
    const angle = turn + (i / corners) * 2 * Math.PI;
    context.lineTo(x + Math.cos(angle) * radius, z + Math.sin(angle) * radius);
  }
  context.closePath();
  context.fill();
  if (outline) context.stroke();
}

function drawTile(context, ground, x, z) {
  const size = TILE_PX;
  const kind = ground.open ? 'grass' : ground.kind(x, z);
  const solid = !ground.open && ground.isSolid(x, z);
  const base = GROUND[kind] ?? GROUND[solid ? 'wall' : 'ground'];
  context.fillStyle = base[noise(x, z) < 0.5 ? 0 : 1];
  context.fillRect(0, 0, size, size);
  const same = (dx, dz) => ground.open || ground.kind(x + dx, z + dz) === kind;
  if (kind === 'tree') {
    for (let i = 0; i < 3; i++) {
      const [px, pz] = [size * (0.3 + 0.4 * noise(x + i, z)), size * (0.3 + 0.4 * noise(x, z + i))];
      context.fillStyle = ['#3f6e3c', '#477a42', '#528549'][i];
      context.beginPath();
      context.arc(px, pz, size * (0.34 - 0.06 * i), 0, 2 * Math.PI);
      context.fill();
    }
  } else if (kind === 'field' || kind === 'bridge') {
    context.fillStyle = 'rgb(70 50 20 / 16%)';
    for (let i = 0; i < 4; i++) context.fillRect(0, (i + 0.5) * (size / 4), size, 2);
  } else if (kind === 'water') {
    context.fillStyle = 'rgb(255 255 255 / 16%)';
    const wave = noise(x, z + 77) * (size - 14);
    context.fillRect(wave, size * 0.3 + noise(z, x) * 12, 12, 1.5);
    edges(context, size, same, 'rgb(236 226 182 / 75%)', 4);
  } else if (solid) {
    context.fillStyle = 'rgb(255 255 255 / 10%)';
    context.fillRect(0, 0, size, size * (0.35 + 0.2 * noise(x + 3, z)));
    edges(context, size, same, 'rgb(0 0 0 / 35%)', 3);
  } else {
    const tufts = kind === 'grass' || kind === 'ground' || kind === 'meadow' || kind === 'forest';
    for (let i = 0; i < 3; i++) {
      const px = noise(x * 7 + i, z) * size;
      const pz = noise(x, z * 7 + i) * size;
      context.fillStyle = tufts ? 'rgb(44 84 40 / 22%)' : 'rgb(90 70 40 / 14%)';
      context.fillRect(px, pz, tufts ? 1.5 : 3, tufts ? 4 : 2);
    }
  }
}

// Lines where another kind of tile begins.
function edges(context, size, same, style, width) {
  context.fillStyle = style;
  if (!same(0, -1)) context.fillRect(0, 0, size, width);
  if (!same(0, 1)) context.fillRect(0, size - width, size, width);
  if (!same(-1, 0)) context.fillRect(0, 0, width, size);
  if (!same(1, 0)) context.fillRect(size - width, 0, width, size);
}
