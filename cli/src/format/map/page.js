// SPDX-License-Identifier: MIT OR Apache-2.0
// Unpacks a map (`pack.rs` says how it is packed) and draws it. Addresses are in pages throughout, and numbers up to
// 2^53 are exact, so all physical addresses are. No data becomes markup: text is set as text.
"use strict";
(() => {
  const begun = performance.now();
  const element = (id) => document.getElementById(id);
  const facts = JSON.parse(element("facts").textContent);

  // ---- Unpacking ----

  const decoded = atob(element("data").textContent.trim());
  const bytes = new Uint8Array(decoded.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = decoded.charCodeAt(at);
  let read = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[read++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  const signed = () => {
    const value = number();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  };

  // Entries of a space: first page, pages, output page (-1 for none), what is said.
  const unpackSpace = (space) => {
    const heads = number(), base = number(), width = number();
    const from = read;
    let entries = 0, listed = 0;
    for (let head = 0; head < heads; head++) {
      const first = number(), form = first % 4, count = Math.floor(first / 8);
      if (first & 4) number();
      number();
      if (form === 1) signed();
      listed += form === 2 ? count : 0;
      entries += form === 2 ? count : 1;
    }
    let list = read * 8;
    const end = read + Math.ceil(listed * width / 8);
    const bits = () => {
      if (width <= 25) {
        // The usual case, in one go: beyond the end are zeroes.
        const from = list >>> 3;
        const four = bytes[from] | bytes[from + 1] << 8 | bytes[from + 2] << 16 | bytes[from + 3] << 24;
        const value = four >>> (list & 7) & (1 << width) - 1;
        list += width;
        return value;
      }
      let value = 0, scale = 1, left = width;
      while (left > 0) {
        const have = Math.min(left, 8 - list % 8);
        value += (bytes[Math.floor(list / 8)] >> list % 8 & (1 << have) - 1) * scale;
        scale *= 1 << have;
        list += have;
        left -= have;
      }
      return value;
    };
    Object.assign(space, {
      size: entries, start: new Float64Array(entries), pages: new Float64Array(entries),
      out: new Float64Array(entries), said: new Uint16Array(entries),
    });
    read = from;
    let at = 0, page = 0, expected = base;
    const put = (pages, out, said) => {
      space.start[at] = page;
      space.pages[at] = pages;
      space.out[at] = out;
      space.said[at++] = said;
      page += pages;
    };
    for (let head = 0; head < heads; head++) {
      const first = number(), form = first % 4, count = Math.floor(first / 8);
      if (first & 4) page += number();
      const said = number();
      if (form === 0) put(count, -1, said);
      if (form === 1) {
        const out = expected + signed();
        put(count, out, said);
        expected = out + count;
      }
      for (let entry = 0; form === 2 && entry < count; entry++) put(1, base + bits(), said);
    }
    read = end;
  };

  // Physical memory: runs of pages of a kind.
  const unpackMemory = (spaces) => {
    const contexts = new Map();
    const longs = [];
    let pairs = 0;
    const singles = new Float64Array(2 * spaces.reduce((sum, space) => sum + space.size, 0));
    spaces.forEach((space, number) => {
      if (space.guest === null) return;
      let last = -1, context = 0;
      for (let at = 0; at < space.size; at++) {
        if (space.out[at] < 0) continue;
        if (space.said[at] !== last) {
          last = space.said[at];
          const key = number * 65536 + last;
          if (!contexts.has(key)) contexts.set(key, contexts.size + 1);
          context = contexts.get(key);
        }
        if (space.pages[at] === 1) singles[pairs++] = space.out[at], singles[pairs++] = context;
        else longs.push({ start: space.out[at], context, end: space.out[at] + space.pages[at] });
      }
    });
    // Sorting numbers is much faster than sorting by a function.
    const scale = contexts.size + 1;
    const keys = new Float64Array(pairs / 2);
    for (let at = 0; at < keys.length; at++) keys[at] = singles[2 * at] * scale + singles[2 * at + 1];
    keys.sort();
    longs.sort((a, b) => a.start - b.start || a.context - b.context || a.end - b.end);
    const streams = [];
    for (let left = number(); left > 0; left--) {
      const runs = number(), kinds = new Uint32Array(runs), pages = new Float64Array(runs);
      for (let run = 0; run < runs; run++) {
        kinds[run] = number();
        pages[run] = number();
      }
      streams.push({ kinds, pages, run: 0 });
    }
    const start = [], end = [], kind = [];
    let at = 0;
    const pull = (stream, to) => {
      while (at < to && stream.run < stream.kinds.length) {
        const pages = Math.min(stream.pages[stream.run], to - at), of = stream.kinds[stream.run] - 1;
        const last = start.length - 1;
        if (of >= 0 && last >= 0 && kind[last] === of && end[last] === at) end[last] += pages;
        else if (of >= 0) start.push(at), end.push(at + pages), kind.push(of);
        stream.pages[stream.run] -= pages;
        if (stream.pages[stream.run] === 0) stream.run++;
        at += pages;
      }
    };
    let single = 0, long = 0;
    while (single < keys.length || long < longs.length) {
      let first = Infinity, context = 0, last = 0;
      if (single < keys.length) {
        first = Math.floor(keys[single] / scale);
        context = keys[single] - first * scale;
        last = first + 1;
      }
      const other = longs[long];
      if (other && (other.start < first || other.start === first && other.context < context)) {
        ({ start: first, context, end: last } = other);
        long++;
      } else single++;
      if (last <= at) continue;
      pull(streams[0], first);
      pull(streams[context], last);
    }
    pull(streams[0], Infinity);
    const size = start.length, pages = new Float64Array(size), out = Float64Array.from(start);
    for (let run = 0; run < size; run++) pages[run] = end[run] - start[run];
    return { name: "physical", size, start: out, pages, out, said: Uint32Array.from(kind) };
  };

  const tables = facts.spaces;
  tables.forEach(unpackSpace);
  const memory = unpackMemory(tables);
  // Space 0 is physical memory.
  const spaces = [memory, ...tables];
  const changes = [];
  // What is said of a change, and the page that its first one led to (-1 for none).
  const side = () => {
    const said = number();
    return [Math.floor(said / 2), said % 2 ? number() : -1];
  };
  for (let left = number(), page = 0; left > 0; left--) {
    const space = number();
    page += signed();
    changes.push({ space, page, pages: number(), before: side(), now: side() });
  }
  const classOf = spaces.map((space, number) => {
    const list = number === 0 ? facts.kinds : facts.sayings;
    return Uint16Array.from(list, (said) => said[0]);
  });
  spaces.forEach((space, number) => {
    space.changes = changes.filter((change) => change.space === number).sort((a, b) => a.page - b.page);
    // The host and frames may change at one place, in ranges of any length: how far all changes up to one reach.
    let reach = 0;
    space.reach = Float64Array.from(space.changes, ({ page, pages }) => (reach = Math.max(reach, page + pages)));
  });
  // Returns the first number below `size` from which on `isPast` holds.
  const firstOf = (size, isPast) => {
    let low = 0, high = size;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isPast(middle)) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  // Returns the changes of `space` that have pages from `first` to before `end`.
  const changesIn = ({ changes, reach }, first, end) => {
    const from = firstOf(changes.length, (at) => reach[at] > first);
    const found = changes.slice(from, from + firstOf(changes.length - from, (at) => changes[from + at].page >= end));
    return found.filter(({ page, pages }) => page + pages > first);
  };

  // ---- Words ----

  const PAGE = BigInt(facts.page_bytes);
  const hex = (page) => "0x" + (BigInt(page) * PAGE).toString(16);
  const last = (page) => "0x" + (BigInt(page) * PAGE - 1n).toString(16);
  const size = (pages) => {
    let value = pages * (facts.page_bytes / 1024), unit = 0;
    while (value >= 1024 && unit < 4) value /= 1024, unit++;
    return `${Number.isInteger(value) ? value : value.toFixed(1)} ${["KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
  };
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // ---- State ----

  // Pages of a cell are 2^shift; below 0 a cell is a page with its sign in it.
  const CLOSEST = -1;
  const LABEL = 104, TITLE = 22, GAP = 15;
  let shift = 0;
  // What is pointed at: a space, its first page and how many; and the same pages elsewhere, as ranges of each space.
  let point = null, linked = [];
  let isHeld = false;
  let onlyClass = -1, onlyChanges = false, changeAt = -1;
  const pagesOf = () => 2 ** Math.max(shift, 0);
  const views = [
    { id: "memory", columns: 64, spaces: [0] },
    { id: "tables", columns: 32, spaces: tables.map((space, at) => at + 1) },
  ];

  // ---- Colors ----

  const WHITE = ["blue", "green", "red"], BLACK = ["orange", "sky", "yellow", "purple"];
  let paints = [], colors = {};
  const stripes = {
    plain: () => {},
    stripes: (c) => { for (let x = -8; x < 16; x += 4) c.moveTo(x, 8), c.lineTo(x + 8, 0); },
    back: (c) => { for (let x = -8; x < 16; x += 4) c.moveTo(x, 0), c.lineTo(x + 8, 8); },
    cross: (c) => { c.moveTo(0, 0), c.lineTo(8, 8), c.moveTo(0, 8), c.lineTo(8, 0); },
    grid: (c) => { for (let x = 2; x < 8; x += 4) c.moveTo(x, 0), c.lineTo(x, 8), c.moveTo(0, x), c.lineTo(8, x); },
    dots: (c) => { for (const [x, y] of [[2, 2], [6, 6]]) c.rect(x - 0.5, y - 0.5, 1, 1); },
  };
  const mix = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue("--" + name).trim();
    colors = { paper: color("paper"), ink: color("ink"), dim: color("dim"), faint: color("faint"), line: color("line") };
    const ratio = devicePixelRatio || 1;
    paints = facts.classes.map(({ paint, pattern }) => {
      const tile = document.createElement("canvas");
      tile.width = tile.height = Math.round(8 * ratio);
      const c = tile.getContext("2d", { willReadFrequently: true });
      c.scale(tile.width / 8, tile.width / 8);
      c.fillStyle = color(paint);
      c.fillRect(0, 0, 8, 8);
      c.strokeStyle = paint === "host" ? colors.faint : pattern === "dots" ? colors.ink : colors.paper;
      c.lineWidth = 1.3;
      c.beginPath();
      stripes[pattern](c);
      c.stroke();
      const sign = WHITE.includes(paint) ? "#fff" : BLACK.includes(paint) ? "#000" : paint === "ink" ? colors.paper : colors.ink;
      const pixels = () => new Uint32Array(c.getImageData(0, 0, tile.width, tile.width).data.buffer);
      const bold = pixels();
      // What is not asked for is a shade of itself.
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.globalAlpha = 0.84;
      c.fillStyle = colors.paper;
      c.fillRect(0, 0, tile.width, tile.width);
      return { bold, faint: pixels(), side: tile.width, sign, plain: color(paint), isPlain: pattern === "plain" };
    });
    const blank = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const pixel = (color) => {
      blank.fillStyle = color;
      blank.fillRect(0, 0, 1, 1);
      return new Uint32Array(blank.getImageData(0, 0, 1, 1).data.buffer)[0];
    };
    colors.paperPixel = pixel(colors.paper);
    colors.inkPixel = pixel(colors.ink);
  };

  // ---- Layout: rows that have something, in blocks of neighbors ----

  // Returns the first entry of `space` that ends after `page`.
  const find = ({ size, start, pages }, page) => firstOf(size, (at) => start[at] + pages[at] > page);
  // Returns the ranges of `space` in which something is.
  const extentsOf = (space) => {
    const extents = [];
    let last = null;
    const add = (start, end) => {
      if (last && start <= last[1]) last[1] = Math.max(last[1], end);
      else extents.push(last = [start, end]);
    };
    // Where something was removed there is nothing now, and it is to be seen.
    let next = 0;
    const addChanges = (before) => {
      for (; next < space.changes.length && space.changes[next].page < before; next++) {
        add(space.changes[next].page, space.changes[next].page + space.changes[next].pages);
      }
    };
    for (let at = 0; at < space.size; at++) {
      addChanges(space.start[at]);
      add(space.start[at], space.start[at] + space.pages[at]);
    }
    addChanges(Infinity);
    return extents;
  };
  spaces.forEach((space) => { space.extents = extentsOf(space); });
  const blocksOf = (space, rowPages) => {
    const blocks = [];
    let block = null;
    for (const [start, end] of space.extents) {
      const first = Math.floor(start / rowPages), after = Math.ceil(end / rowPages);
      if (block && first <= block.first + block.rows) block.rows = Math.max(block.rows, after - block.first);
      else blocks.push(block = { first, rows: after - first });
    }
    return blocks;
  };
  const layout = (view) => {
    const width = view.node.clientWidth;
    view.height = view.node.clientHeight;
    view.perRow = shift < 0 ? view.columns / 4 : view.columns;
    view.rowPages = view.perRow * pagesOf();
    view.cell = Math.max(3, Math.floor((width - LABEL - 6) / view.perRow));
    view.row = shift < 0 ? Math.min(view.cell, 26) : Math.max(9, Math.min(view.cell, 14));
    place(view);
    // Where there is room, rows are higher.
    const rows = view.blocks.reduce((sum, block) => sum + block.rows, 0), spare = view.height - view.total;
    if (shift >= 0 && spare > rows) {
      view.row = Math.min(16, Math.floor(view.row + spare / rows));
      place(view);
    }
    // Browsers bound the height of an element.
    view.tall = Math.min(view.total, 8e6);
    view.node.querySelector(".tall").style.height = view.tall + "px";
    const ratio = devicePixelRatio || 1;
    for (const canvas of view.canvases) {
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(view.height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(view.height * ratio);
        canvas.style.width = width + "px";
        canvas.style.height = view.height + "px";
      }
    }
    view.width = width;
  };
  const place = (view) => {
    view.blocks = [];
    view.titles = [];
    let y = 4;
    for (const number of view.spaces) {
      if (view.spaces.length > 1 || number > 0) {
        view.titles.push({ number, y });
        y += TITLE;
      }
      let last = null;
      for (const block of blocksOf(spaces[number], view.rowPages)) {
        if (last) y += GAP;
        const gap = last ? block.first - last.first - last.rows : 0;
        last = { ...block, number, y, gap };
        view.blocks.push(last);
        y += block.rows * view.row;
      }
      y += 12;
    }
    view.total = y;
  };
  const room = (view) => [Math.max(view.tall - view.height, 0), Math.max(view.total - view.height, 0)];
  const topOf = (view) => {
    const [shown, real] = room(view);
    return shown ? view.node.scrollTop * real / shown : 0;
  };
  const scrollTo = (view, y) => {
    const [shown, real] = room(view);
    view.node.scrollTop = real ? Math.max(0, Math.min(y, real)) * shown / real : 0;
  };
  // Returns the block that ends after `y`.
  const blockAt = ({ blocks, row }, y) => firstOf(blocks.length, (at) => blocks[at].y + blocks[at].rows * row > y);
  // Calls `visit` for each block that can be seen, with the first and the last row of it, and the height of its first row.
  const eachShown = (view, visit) => {
    const top = topOf(view);
    for (let at = blockAt(view, top); at < view.blocks.length; at++) {
      const block = view.blocks[at];
      if (block.y > top + view.height) break;
      const from = Math.max(0, Math.floor((top - block.y) / view.row));
      const to = Math.min(block.rows, Math.ceil((top + view.height - block.y) / view.row));
      visit(block, block.first + from, block.first + to, block.y + from * view.row - top);
    }
  };
  const rowY = (view, number, page) => {
    const row = Math.floor(page / view.rowPages);
    const block = view.blocks.find((block) => block.number === number && row >= block.first && row < block.first + block.rows);
    return block ? block.y + (row - block.first) * view.row : null;
  };

  // ---- Drawing ----

  const CLASSES = facts.classes.length;
  let sums = new Float64Array(0);
  const draw = (view) => {
    const c = view.base, ratio = devicePixelRatio || 1;
    const top = topOf(view), { cell, row, perRow } = view, perCell = pagesOf();
    // Pixels are set one by one: there are tens of thousands of small rectangles, with patterns.
    const { width: across, height: down } = view.canvases[0];
    if (!view.image || view.image.width !== across || view.image.height !== down) view.image = c.createImageData(across, down);
    const pixels = new Uint32Array(view.image.data.buffer);
    pixels.fill(colors.paperPixel);
    const rect = (x, y, width, height, { bold, faint, side, isPlain }, isFaint) => {
      const tile = isFaint ? faint : bold;
      const left = Math.max(0, Math.round(x * ratio)), right = Math.min(across, Math.round((x + width) * ratio));
      let from = Math.max(0, Math.round(y * ratio));
      const to = Math.min(down, Math.max(Math.round((y + height) * ratio), from + 1));
      for (; from < to; from++) {
        const line = from * across, of = from % side * side;
        if (isPlain) pixels.fill(tile[0], line + left, line + right);
        else for (let at = left; at < right; at++) pixels[line + at] = tile[of + at % side];
      }
    };
    // What changed has a corner.
    const corner = (x, y) => {
      const right = Math.min(across, Math.round((x + cell - 1) * ratio)), from = Math.round(y * ratio);
      const side = Math.round(Math.max(5, Math.min(cell - 1, row - 1) * 0.55) * ratio);
      for (let line = 0; line < side; line++) {
        if (from + line < 0 || from + line >= down) continue;
        const end = (from + line) * across + right;
        pixels.fill(colors.paperPixel, end - side + line - 1, end);
        pixels.fill(colors.inkPixel, end - side + line, end);
      }
    };
    const signs = [];
    eachShown(view, (block, from, to, y0) => {
      const space = spaces[block.number], classes = classOf[block.number];
      const first = from * view.rowPages, end = to * view.rowPages, cells = (to - from) * perRow;
      if (sums.length < cells * CLASSES) sums = new Float64Array(cells * CLASSES);
      else sums.fill(0, 0, cells * CLASSES);
      for (let at = find(space, first); at < space.size && space.start[at] < end; at++) {
        const of = classes[space.said[at]];
        let page = Math.max(space.start[at], first) - first;
        const after = Math.min(space.start[at] + space.pages[at], end) - first;
        while (page < after) {
          const at = Math.floor(page / perCell), to = Math.min((at + 1) * perCell, after);
          sums[at * CLASSES + of] += to - page;
          page = to;
        }
      }
      let changed = null;
      if (space.changes.length) {
        changed = new Uint8Array(cells);
        for (const { page, pages } of changesIn(space, first, end)) {
          const last = Math.ceil((Math.min(page + pages, end) - first) / perCell);
          changed.fill(1, Math.floor((Math.max(page, first) - first) / perCell), last);
        }
      }
      for (let at = 0; at < cells; at++) {
        const x = LABEL + at % perRow * cell, y = y0 + Math.floor(at / perRow) * row;
        const isFaint = onlyChanges && !(changed && changed[at]);
        let parts = 0;
        const base = at * CLASSES;
        for (let of = 0; of < CLASSES; of++) {
          if (sums[base + of] > 0) parts++;
        }
        if (parts === 0) continue;
        // Cells of several owners, and single pages, stand apart; the rest is an area.
        const gap = cell > 5 && (shift < 1 || parts > 1) ? 1 : 0, width = cell - gap, height = row - gap;
        // Classes that have less than a line of pixels share one, so that all can be seen and shares are true.
        const lines = Math.round(height * ratio), rare = [], common = [];
        for (let of = 0; of < CLASSES; of++) {
          if (sums[base + of] > 0) (parts > 1 && sums[base + of] * lines < 0.7 * perCell ? rare : common).push(of);
        }
        const isFaintClass = (of) => isFaint || onlyClass >= 0 && of !== onlyClass;
        if (!common.length) common.push(...rare.splice(0));
        let used = rare.length ? 1 : 0;
        rare.forEach((of, place) => rect(x + place * width / rare.length, y, width / rare.length, 1 / ratio, paints[of], isFaintClass(of)));
        const parted = common.map((of) => Math.max(parts > 1 ? 1 : 2, Math.round((lines - used) * sums[base + of] / perCell)));
        for (let more = parted.reduce((sum, part) => sum + part, used) - lines; more > 0; more--) {
          parted[parted.indexOf(Math.max(...parted))]--;
        }
        common.forEach((of, place) => {
          rect(x, y + used / ratio, width, parted[place] / ratio, paints[of], isFaintClass(of));
          used += parted[place];
        });
        if (shift < 0) signs.push(common[0], x + width / 2, y + height / 2, isFaint);
      }
      for (let at = 0; changed && at < cells; at++) {
        if (changed[at]) corner(LABEL + at % perRow * cell, y0 + Math.floor(at / perRow) * row);
      }
    });
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.putImageData(view.image, 0, 0);
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.font = `600 ${Math.round(row * 0.58)}px ui-monospace, monospace`;
    for (let at = 0; at < signs.length; at += 4) {
      const of = signs[at];
      if (signs[at + 3] || onlyClass >= 0 && of !== onlyClass) continue;
      if (!paints[of].isPlain) {
        // A sign on a pattern is hard to read.
        c.fillStyle = paints[of].plain;
        c.fillRect(signs[at + 1] - row * 0.3, signs[at + 2] - row * 0.34, row * 0.6, row * 0.66);
      }
      c.fillStyle = paints[of].sign;
      c.fillText(facts.classes[of].sign, signs[at + 1], signs[at + 2] + 1);
    }
    label(view, c, top);
    overlay(view);
  };
  const label = (view, c, top) => {
    c.textBaseline = "alphabetic";
    c.textAlign = "right";
    c.font = "11px ui-monospace, monospace";
    eachShown(view, (block, from, to, y0) => {
      const every = Math.ceil(15 / view.row);
      c.fillStyle = colors.dim;
      for (let row = from; row < to; row++) {
        // At the first row of a block, and then at round ones.
        if (row !== block.first && (row % (every === 1 ? 1 : 4) || row - block.first < every)) continue;
        c.fillText(hex(row * view.rowPages), LABEL - 8, y0 + (row - from) * view.row + Math.min(view.row, 10));
      }
      if (block.gap) {
        c.textAlign = "left";
        c.fillStyle = colors.dim;
        c.font = "10px system-ui, sans-serif";
        c.fillText(`⋯ nothing in ${size(block.gap * view.rowPages)} ⋯`, LABEL, block.y - top - 4);
        c.textAlign = "right";
        c.font = "11px ui-monospace, monospace";
      }
    });
    c.textAlign = "left";
    for (const { number, y } of view.titles) {
      if (y - top < -TITLE || y - top > view.height) continue;
      const space = spaces[number];
      c.fillStyle = colors.ink;
      c.font = "600 12px system-ui, sans-serif";
      c.fillText(space.name, LABEL, y - top + 15);
      const used = c.measureText(space.name + "  ").width;
      c.font = "12px system-ui, sans-serif";
      c.fillStyle = colors.dim;
      c.fillText(space.size ? space.about : space.about + ", nothing mapped", LABEL + used, y - top + 15);
    }
  };
  // What is pointed at, and the same pages elsewhere.
  const overlay = (view) => {
    const c = view.over, ratio = devicePixelRatio || 1;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, view.width, view.height);
    if (!point) return;
    const perCell = pagesOf();
    eachShown(view, (block, from, to, y0) => {
      const first = from * view.rowPages, end = to * view.rowPages;
      const isHere = block.number === point.space;
      const outline = (start, after, isPoint) => {
        const a = Math.floor((Math.max(start, first) - first) / perCell), b = Math.ceil((Math.min(after, end) - first) / perCell);
        for (let at = a; at < b;) {
          const row = Math.floor(at / view.perRow), to = Math.min(b, (row + 1) * view.perRow);
          const x = LABEL + at % view.perRow * view.cell, y = y0 + row * view.row, width = (to - at) * view.cell;
          for (const [color, line, out] of [[colors.paper, isPoint ? 5 : 3.5, 1], [colors.ink, isPoint ? 2.5 : 1.5, 1]]) {
            c.strokeStyle = color;
            c.lineWidth = line;
            c.strokeRect(x - out, y - out, width + 2 * out - 1, view.row + 2 * out - 1);
          }
          at = to;
        }
      };
      let last = -1;
      for (const [start, after] of linked[block.number] || []) {
        if (after <= first || start >= end) continue;
        const cell = Math.floor(start / perCell);
        if (cell === last && after <= (cell + 1) * perCell) continue;
        last = cell;
        outline(start, after, false);
      }
      if (isHere && point.page < end && point.page + point.pages > first) outline(point.page, point.page + point.pages, true);
    });
  };

  // ---- What is pointed at ----

  const merge = (ranges) => {
    ranges.sort((a, b) => a[0] - b[0]);
    const merged = [];
    for (const [start, end] of ranges) {
      const last = merged[merged.length - 1];
      if (last && start <= last[1]) last[1] = Math.max(last[1], end);
      else merged.push([start, end]);
    }
    return merged;
  };
  // Returns the ranges of `space` that lead to one of `ranges` of physical memory, which are ascending.
  const leading = (space, ranges) => {
    const found = [];
    if (!ranges.length) return found;
    const low = ranges[0][0], high = ranges[ranges.length - 1][1];
    for (let at = 0; at < space.size; at++) {
      const out = space.out[at], after = out + space.pages[at];
      if (out < 0 || out >= high || after <= low) continue;
      for (let a = firstOf(ranges.length, (at) => ranges[at][1] > out); a < ranges.length && ranges[a][0] < after; a++) {
        const start = space.start[at] + Math.max(0, ranges[a][0] - out);
        found.push([start, space.start[at] + Math.min(space.pages[at], ranges[a][1] - out)]);
      }
    }
    return merge(found);
  };
  const link = () => {
    linked = [];
    if (!point) return;
    let ranges = [[point.page, point.page + point.pages]];
    if (point.space > 0) {
      const space = spaces[point.space], [[page, end]] = ranges;
      ranges = [];
      for (let at = find(space, page); at < space.size && space.start[at] < end; at++) {
        if (space.out[at] < 0) continue;
        const skipped = Math.max(0, page - space.start[at]);
        ranges.push([space.out[at] + skipped, space.out[at] + Math.min(space.pages[at], end - space.start[at])]);
      }
      ranges = merge(ranges);
    }
    linked = spaces.map((space, number) => (number === 0 ? ranges : leading(space, ranges)));
  };
  // Returns the entries of `space` in `ranges`, by what they say, with how many pages.
  const sayings = (space, ranges) => {
    const found = new Map();
    for (const [start, end] of ranges) {
      for (let at = find(space, start); at < space.size && space.start[at] < end; at++) {
        const pages = Math.min(space.start[at] + space.pages[at], end) - Math.max(space.start[at], start);
        found.set(space.said[at], (found.get(space.said[at]) || 0) + pages);
      }
    }
    return [...found].sort((a, b) => b[1] - a[1]);
  };
  const show = (node, ...children) => node.append(...children);
  const make = (name, text, className) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const MOST = 6;
  const tell = () => {
    const node = element("point");
    node.replaceChildren();
    element("pinned").hidden = !isHeld;
    if (!point) {
      show(node, make("p", "Point at a cell: here is whose its pages are, and where each tree has them.", "small"));
      return "";
    }
    const space = spaces[point.space], end = point.page + point.pages;
    show(node, make("p", `${space.name} ${hex(point.page)}–${last(end)}`, "address"));
    const list = make("dl");
    const line = (term, text, className) => show(list, make("dt", term), make("dd", text, className));
    const said = [];
    // Physical memory first, then each tree.
    const ranges = linked[0] || [];
    const kinds = sayings(memory, ranges).map(([kind, pages]) => [facts.kinds[kind], pages]);
    if (kinds.length === 1) {
      const [[of, host, frame, more]] = kinds[0];
      line("owner", facts.classes[of].name);
      said.push(facts.classes[of].name);
      if (more) line("", more);
      if (host) line("host's entry", host);
      if (frame) line("frame", frame);
    } else {
      const byClass = new Map();
      for (const [[of], pages] of kinds) byClass.set(of, (byClass.get(of) || 0) + pages);
      for (const [of, pages] of [...byClass].sort((a, b) => b[1] - a[1])) {
        line(size(pages), facts.classes[of].name);
        said.push(`${size(pages)} ${facts.classes[of].name}`);
      }
    }
    if (point.space === 0 && !kinds.length) line("", "nothing is known of these addresses");
    const places = (number, ranges) => {
      const of = spaces[number];
      const first = ranges.slice(0, MOST).map(([start, end]) => hex(start) + (end - start > 1 ? "+" + size(end - start).replace(" ", "") : ""));
      const rest = ranges.length > MOST ? ` and ${plural(ranges.length - MOST, "more range")}` : "";
      const words = number ? sayings(of, ranges).slice(0, MOST) : [];
      const text = words.map(([said, pages]) => facts.sayings[said][1] + (words.length > 1 ? ` (${size(pages)})` : ""));
      line(of.name, `${first.join(" ")}${rest}`);
      if (text.length) line("", text.join("; "));
      said.push(`${of.name} ${first[0]}`);
    };
    if (point.space > 0) {
      const own = sayings(space, [[point.page, end]]);
      if (!ranges.length) {
        for (const of of new Set(own.map(([number]) => facts.sayings[number][0]))) line("is", facts.classes[of].name);
      }
      for (const [number, pages] of own.slice(0, MOST)) line("entries", `${facts.sayings[number][1]} (${size(pages)})`);
      if (!own.length) line("", "a hole: nothing is there");
      if (ranges.length) places(0, ranges);
    }
    linked.forEach((ranges, number) => {
      if (number === 0 || !ranges.length) return;
      const isSame = number === point.space && ranges.every(([a, b]) => a >= point.page && b <= end);
      if (!isSame) places(number, ranges);
    });
    // What changed there, on this side and that.
    let told = 0, there = 0;
    const changed = (number, ranges) => {
      const found = new Map();
      for (const [first, end] of ranges) {
        for (const change of changesIn(spaces[number], first, end)) {
          if (!found.has(change)) found.set(change, Math.max(0, first - change.page));
        }
      }
      for (const [change, on] of [...found].slice(0, MOST - told)) {
        const words = ([said, out]) => facts.changed[said] + (out < 0 ? "" : " " + hex(out + on));
        line("before", words(change.before));
        line("now", words(change.now), "was");
        told++;
      }
      there += found.size;
    };
    changed(point.space, [[point.page, end]]);
    linked.forEach((ranges, number) => number !== point.space && changed(number, ranges));
    if (there > told) line("", `and ${plural(there - told, "more change")}`);
    show(node, list);
    return `${space.name} ${hex(point.page)}, ${size(point.pages)}: ${said.join(", ")}`;
  };
  let pending = 0;
  const later = (what) => {
    if (!pending) requestAnimationFrame(flush);
    pending |= what;
  };
  const DRAW = 3, POINT = 4;
  const flush = () => {
    const what = pending;
    pending = 0;
    if (what & POINT) {
      link();
      tell();
    }
    views.forEach((view, number) => (what & 1 << number ? draw(view) : overlay(view)));
  };
  const pointAt = (space, page, pages) => {
    if (point && point.space === space && point.page === page && point.pages === pages) return;
    point = { space, page, pages };
    later(POINT);
  };
  const announce = () => {
    link();
    element("said").textContent = tell();
    views.forEach(overlay);
  };
  const forget = () => {
    point = null;
    isHeld = false;
    announce();
  };
  const viewOf = (space) => views[space === 0 ? 0 : 1];
  // Scrolls so that `page` of `space` can be seen; not if it can already.
  const reveal = (space, page, isForced) => {
    const view = viewOf(space), y = rowY(view, space, page);
    if (y === null) return false;
    const top = topOf(view);
    if (isForced || y < top + 4 || y + view.row > top + view.height - 4) scrollTo(view, y - view.height / 2);
    return true;
  };
  // Returns the space on the other side that has what is pointed at; of several that of a guest, which says most.
  const otherSide = () => {
    const others = [...linked.keys()].filter((number) => (number === 0) !== (point.space === 0) && linked[number].length);
    return others.find((number) => number === 0 || spaces[number].guest !== null) ?? others[0];
  };
  const revealLinked = (isForced) => {
    const other = point ? otherSide() : undefined;
    if (other !== undefined) reveal(other, linked[other][0][0], isForced);
  };
  const hold = () => {
    if (!point) return;
    isHeld = true;
    announce();
    revealLinked(false);
  };
  // Goes to the other side, if the page is there.
  const cross = () => {
    if (!point) return;
    const other = otherSide();
    if (other === undefined) {
      element("status").textContent = point.space > 0 ? "It leads nowhere." : "No tree shown here maps it.";
      return;
    }
    const pages = pagesOf(), page = Math.floor(linked[other][0][0] / pages) * pages;
    viewOf(other).node.focus();
    point = { space: other, page, pages };
    isHeld = true;
    announce();
    reveal(other, page, false);
  };

  // ---- Zoom ----

  const MOST_SHIFT = 36;
  const zoom = (to, at) => {
    const next = Math.max(CLOSEST, Math.min(MOST_SHIFT, to));
    // What is pointed at stays where it is, else what is in the middle.
    const anchors = views.map((view) => {
      const top = topOf(view), linkedHere = view.spaces.find((number) => linked[number] && linked[number].length);
      let space, page;
      if (at && viewOf(at.space) === view) ({ space, page } = at);
      else if (at && linkedHere !== undefined) [space, page] = [linkedHere, linked[linkedHere][0][0]];
      if (space === undefined) {
        const block = view.blocks[Math.min(blockAt(view, top + view.height / 2), view.blocks.length - 1)];
        if (!block) return null;
        const row = Math.max(0, Math.min(block.rows - 1, Math.floor((top + view.height / 2 - block.y) / view.row)));
        [space, page] = [block.number, (block.first + row) * view.rowPages];
      }
      const y = rowY(view, space, page);
      const seen = y === null ? view.height / 2 : y - top;
      return { space, page, y: seen < 0 || seen > view.height ? view.height / 2 : seen };
    });
    shift = next;
    views.forEach(layout);
    views.forEach((view, number) => {
      const anchor = anchors[number], y = anchor && rowY(view, anchor.space, anchor.page);
      if (y !== null && anchor) scrollTo(view, y - anchor.y);
    });
    if (point) {
      const pages = pagesOf(), inner = at && at.space === point.space ? at.page : point.page;
      point = { space: point.space, page: Math.floor(inner / pages) * pages, pages };
      link();
      tell();
    }
    element("scale").textContent = shift < 0 ? "cell = page" : `cell = ${size(pagesOf())}`;
    element("in").disabled = shift === CLOSEST;
    later(DRAW);
  };
  // Returns the closest zoom that shows all of physical memory.
  const fitting = () => {
    for (shift = 0; shift < MOST_SHIFT; shift++) {
      views.forEach(layout);
      if (views[0].total <= views[0].height && views[1].total <= 2.5 * views[1].height) break;
    }
    return shift;
  };
  const showAll = () => {
    point = isHeld ? point : null;
    zoom(fitting());
    for (const view of views) scrollTo(view, 0);
  };

  // ---- Moving ----

  const move = (view, columns, rows) => {
    const pages = pagesOf();
    if (!point || viewOf(point.space) !== view) {
      const top = topOf(view), block = view.blocks[Math.min(blockAt(view, top), view.blocks.length - 1)];
      if (!block) return;
      const row = Math.max(0, Math.ceil((top - block.y) / view.row));
      const page = (block.first + row) * view.rowPages, space = spaces[block.number];
      const first = Math.max(page, space.start[Math.min(find(space, page), space.size - 1)] || 0);
      point = { space: block.number, page: Math.floor(first / pages) * pages, pages };
    } else {
      let row = Math.floor(point.page / view.rowPages), column = Math.floor(point.page % view.rowPages / pages) + columns;
      if (column < 0) row--, column += view.perRow;
      if (column >= view.perRow) row++, column -= view.perRow;
      const old = Math.floor(point.page / view.rowPages);
      let at = view.blocks.findIndex((block) => block.number === point.space && old >= block.first && old < block.first + block.rows);
      if (at < 0) return;
      // Rows of nothing are not there: go on in the next block.
      let place = old - view.blocks[at].first + (row - old) + rows;
      while (place < 0 && at > 0) place += view.blocks[--at].rows;
      while (place >= view.blocks[at].rows && at + 1 < view.blocks.length) place -= view.blocks[at++].rows;
      const block = view.blocks[at];
      place = Math.max(0, Math.min(place, block.rows - 1));
      point = { space: block.number, page: (block.first + place) * view.rowPages + column * pages, pages };
    }
    isHeld = true;
    announce();
    reveal(point.space, point.page, false);
    revealLinked(false);
  };
  const rowsShown = (view) => Math.max(1, Math.floor(view.height / view.row) - 2);
  const cellAt = (view, event) => {
    const box = view.node.getBoundingClientRect();
    const x = event.clientX - box.left - view.node.clientLeft - LABEL, y = event.clientY - box.top - view.node.clientTop + topOf(view);
    const block = view.blocks[blockAt(view, y)], column = Math.floor(x / view.cell);
    if (!block || y < block.y || column < 0 || column >= view.perRow) return null;
    const row = block.first + Math.floor((y - block.y) / view.row);
    return { space: block.number, page: row * view.rowPages + column * pagesOf() };
  };

  // ---- Search ----

  const parse = (text) => {
    const plain = text.trim().replaceAll("_", "");
    const sized = /^(\d+)([kmgt])(i?b)?$/i.exec(plain);
    if (sized) return BigInt(sized[1]) << BigInt({ k: 10, m: 20, g: 30, t: 40 }[sized[2].toLowerCase()]);
    if (/^0x[0-9a-f]{1,16}$/i.test(plain)) return BigInt(plain);
    if (/^\d{1,4}$/.test(plain)) return BigInt(plain);
    return null;
  };
  const search = () => {
    let text = element("address").value.trim(), space = Number(element("where").value);
    const named = /^(.*)@(.*)$/.exec(text);
    const complain = (words) => { element("status").textContent = words; };
    if (named) {
      space = spaces.findIndex((of) => of.name === named[1].trim().toLowerCase());
      text = named[2];
      if (space < 0) return complain(`“${named[1]}” is none of: ${spaces.map((of) => of.name).join(", ")}.`);
    }
    const address = parse(text);
    if (address === null) return complain(`“${text}” is no address: write 0x4080_0000, or 2G.`);
    const page = Number(address / PAGE);
    go(space, page, `${spaces[space].name} ${hex(page)}`);
  };
  const go = (space, page, name) => {
    point = { space, page, pages: 1 };
    isHeld = true;
    link();
    zoom(CLOSEST, { space, page });
    const isThere = reveal(space, page, true);
    revealLinked(true);
    announce();
    element("status").textContent = isThere ? "" : `Nothing is at ${name}.`;
    viewOf(space).node.focus({ preventScroll: true });
  };
  const step = (by) => {
    if (!changes.length) return;
    changeAt = changeAt < 0 ? (by > 0 ? 0 : changes.length - 1) : (changeAt + by + changes.length) % changes.length;
    const { space, page, pages } = changes[changeAt];
    element("change").textContent = `${changeAt + 1} of ${changes.length.toLocaleString("en")}`;
    point = { space, page, pages };
    isHeld = true;
    reveal(space, page, false);
    announce();
    revealLinked(false);
  };

  // ---- Beginning ----

  for (const [number, view] of views.entries()) {
    view.node = element(view.id);
    view.canvases = [...view.node.querySelectorAll("canvas")];
    view.base = view.canvases[0].getContext("2d", { willReadFrequently: true });
    view.over = view.canvases[1].getContext("2d");
    view.node.addEventListener("scroll", () => later(1 << number), { passive: true });
    view.node.addEventListener("pointermove", (event) => {
      if (isHeld) return;
      const cell = cellAt(view, event);
      if (cell) pointAt(cell.space, cell.page, pagesOf());
    });
    view.node.addEventListener("pointerleave", () => {
      if (isHeld || !point) return;
      point = null;
      later(POINT);
    });
    view.node.addEventListener("click", (event) => {
      const cell = cellAt(view, event);
      if (!cell) return forget();
      point = { ...cell, pages: pagesOf() };
      hold();
    });
    view.node.addEventListener("dblclick", cross);
    view.node.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(shift + Math.sign(event.deltaY), cellAt(view, event));
    }, { passive: false });
    view.node.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const moves = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
        PageUp: [0, -rowsShown(view)], PageDown: [0, rowsShown(view)], Home: [0, -1e15], End: [0, 1e15],
      };
      const acts = { Enter: cross, " ": hold };
      if (moves[event.key]) move(view, ...moves[event.key]);
      else if (acts[event.key]) acts[event.key]();
      else return;
      event.preventDefault();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === "Escape") {
      if (isTyping) views[0].node.focus();
      forget();
      only(-1);
      element("status").textContent = "";
      return;
    }
    const acts = {
      "/": () => { element("address").focus(); element("address").select(); },
      "+": () => zoom(shift - 1, point), "=": () => zoom(shift - 1, point), "-": () => zoom(shift + 1, point),
      0: showAll, n: () => step(1), p: () => step(-1),
    };
    if (isTyping || !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });
  const only = (of) => {
    onlyClass = of;
    element("legend").querySelectorAll("button").forEach((button, number) => button.setAttribute("aria-pressed", String(number === of)));
    later(DRAW);
  };
  const swatches = [];
  const legend = () => {
    const body = element("legend").querySelector("tbody");
    facts.classes.forEach((line, number) => {
      const row = make("tr"), first = make("td"), name = make("td");
      const button = make("button", `${line.name} `);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => only(onlyClass === number ? -1 : number));
      const canvas = make("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${line.paint}, ${line.pattern}, sign ${line.sign}`);
      swatches.push(canvas);
      show(first, canvas);
      show(name, button);
      show(row, first, name, make("td", line.memory), make("td", line.input));
      show(body, row);
    });
  };
  const fillSwatches = () => {
    swatches.forEach((canvas, of) => {
      const ratio = devicePixelRatio || 1;
      [canvas.width, canvas.height] = [40 * ratio, 16 * ratio];
      [canvas.style.width, canvas.style.height] = ["40px", "16px"];
      const c = canvas.getContext("2d");
      c.scale(ratio, ratio);
      const { bold, side } = paints[of], image = c.createImageData(canvas.width, canvas.height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let at = 0; at < pixels.length; at++) {
        pixels[at] = bold[Math.floor(at / canvas.width) % side * side + at % canvas.width % side];
      }
      c.putImageData(image, 0, 0);
      c.fillStyle = paints[of].plain;
      c.fillRect(24, 0, 16, 16);
      c.strokeStyle = colors.line;
      c.strokeRect(0.5, 0.5, 39, 15);
      c.fillStyle = paints[of].sign;
      c.font = "600 11px ui-monospace, monospace";
      c.textAlign = "center";
      c.fillText(facts.classes[of].sign, 32, 12);
    });
  };
  element("source").textContent = facts.source + (facts.since ? `, compared with ${facts.since}` : "");
  document.title = `s2dump map: ${facts.source}`;
  spaces.forEach((space, number) => {
    const option = make("option", space.name);
    option.value = String(number);
    show(element("where"), option);
  });
  facts.notes.forEach((note) => show(element("notes"), make("p", note)));
  element("search").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  element("all").addEventListener("click", showAll);
  element("in").addEventListener("click", () => zoom(shift - 1, point));
  element("out").addEventListener("click", () => zoom(shift + 1, point));
  element("next").addEventListener("click", () => step(1));
  element("previous").addEventListener("click", () => step(-1));
  element("only").addEventListener("click", () => {
    onlyChanges = !onlyChanges;
    element("only").setAttribute("aria-pressed", String(onlyChanges));
    later(DRAW);
  });
  if (facts.since !== null) {
    element("changes").hidden = false;
    element("change").textContent = plural(changes.length, "change");
  }
  const mixed = () => {
    mix();
    fillSwatches();
    later(DRAW);
  };
  legend();
  mix();
  fillSwatches();
  tell();
  zoom(fitting());
  views.forEach(draw);
  const took = Math.round(performance.now() - begun);
  document.documentElement.dataset.drawn = String(took);
  show(element("notes"), make("p", `Drawn in ${took} ms.`));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", mixed);
  let isFirst = true;
  new ResizeObserver(() => {
    if (!isFirst) zoom(shift, point);
    isFirst = false;
  }).observe(views[0].node);
})();
