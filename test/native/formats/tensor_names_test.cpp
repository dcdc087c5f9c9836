#include "formats/tensor_names.h"

#include <gtest/gtest.h>

namespace nosa {
namespace {

TEST(TensorNames, RenamesTheLlamaFamily) {
  EXPECT_EQ(canonical_tensor_name("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(canonical_tensor_name("model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(canonical_tensor_name("lm_head.weight"), "output.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.0.self_attn.q_proj.weight"), "blk.0.attn_q.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.12.self_attn.k_proj.bias"), "blk.12.attn_k.bias");
  EXPECT_EQ(canonical_tensor_name("model.layers.3.self_attn.o_proj.weight"),
            "blk.3.attn_output.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.3.input_layernorm.weight"),
            "blk.3.attn_norm.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.3.post_attention_layernorm.weight"),
            "blk.3.ffn_norm.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.3.mlp.down_proj.weight"), "blk.3.ffn_down.weight");
}

TEST(TensorNames, RenamesWhatNosaAdds) {
  EXPECT_EQ(canonical_tensor_name("model.layers.27.self_attn.A"), "blk.27.nosa_a");
  EXPECT_EQ(canonical_tensor_name("model.layers.27.self_attn.delta.weight"),
            "blk.27.nosa_delta.weight");
  EXPECT_EQ(canonical_tensor_name("model.layers.27.self_attn.delta.bias"),
            "blk.27.nosa_delta.bias");
}

TEST(TensorNames, KeepsEveryOtherName) {
  for (const char* name :
       {"", "model.layers.", "model.layers.x.mlp.up_proj.weight", "model.layers.3",
        "model.layers.3.", "model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj.scales",
        "model.layers.3.self_attn.rotary_emb.inv_freq", "blk.0.attn_q.weight",
        "xmodel.norm.weight"}) {
    EXPECT_EQ(canonical_tensor_name(name), name);
  }
}

}  // namespace
}  // namespace nosa
