#include "tests/support/script_modules.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/api/module.h>

#include <sstream>

namespace boss::testing {

std::shared_ptr<const std::string> ScriptArchive(const std::string& code, const ScriptTensors& parameters,
                                                 const ScriptTensors& buffers) {
  torch::jit::Module module("__torch__.Network");
  for (const auto& [name, tensor] : parameters) module.register_parameter(name, tensor, /*is_buffer=*/false);
  for (const auto& [name, tensor] : buffers) module.register_buffer(name, tensor);
  module.define(code);
  std::ostringstream out;
  module.save(out);
  return std::make_shared<const std::string>(std::move(out).str());
}

std::shared_ptr<const std::string> ScriptVectorArchive() {
  at::Generator generator = at::detail::createCPUGenerator(5);
  const auto weights = [&](at::IntArrayRef shape) { return at::randn(shape, generator) * 0.5; };
  return ScriptArchive(
      R"(
def forward(self, x, t):
    h = torch.cat([x, t.unsqueeze(1)], 1)
    h = torch.tanh(torch.matmul(h, self.w1) + self.b1)
    return torch.matmul(h, self.w2) + self.b2
)",
      {{"w1", weights({3, 16})}, {"b1", weights({16})}, {"w2", weights({16, 2})}, {"b2", weights({2})}});
}

std::shared_ptr<const std::string> ScriptDecoderArchive() {
  return ScriptArchive(R"(
def forward(self, z):
    return (z.sum(1).view([-1, 1, 1, 1]) * self.ones).contiguous()
)",
                       {}, {{"ones", at::ones({1, 1, 4, 4})}});
}

}  // namespace boss::testing
