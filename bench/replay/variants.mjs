// What may be asked of the model otherwise than the product does: each a way of its own, to be named with --only.

/**
 * `layout` "none": no repository but what is pasted. `near`: so many passages that share most words with the text around the cursor are pasted before the
 * file. `pinned`: so many are attended to whatever the selection prefers; `alone`: and nothing else. `prefix`, `suffix`: most tokens of the text around the
 * cursor. `hidesFile`: all that was read of the file itself is out of sight. `selection`: other than the product's.
 */
export const variants = {
  ours: {},
  file: { layout: "none" },
  "ours-alone": { pinned: 4, alone: true },
  "ours-pinned": { pinned: 4 },
  "ours-others": { hidesFile: true },
  "ours-few": { selection: { totalBlocks: 40 } },
  "ours-suffix": { suffix: 384 },
  "ours-near": { near: 3 },
  "ours-near-suffix": { near: 2, suffix: 384 },
  "ours-long": { prefix: 2_048, suffix: 512 },
  near: { layout: "none", near: 3 },
  "near-suffix": { layout: "none", near: 2, suffix: 384 },
  "file-suffix": { layout: "none", suffix: 384 },
  "file-long": { layout: "none", prefix: 2_048, suffix: 512 },
};
