#include "tools/obd/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "tools/obd/command.h"

namespace obd::tool {
namespace {

// The first option or argument that was given an empty text; empty: there is none.
std::string without_value(const CLI::App& app) {
  for (const CLI::App* command : app.get_subcommands()) {
    for (const CLI::Option* option : command->get_options()) {
      if (option->check_name("--message")) continue;
      const auto& values = option->results();
      if (std::ranges::find(values, "") != values.end()) return option->get_name();
    }
  }
  return "";
}

int not_understood(const CLI::App& app, const std::string& complaint) {
  std::string help = app.get_name();
  for (const CLI::App* command : app.get_subcommands()) help += " " + command->get_name();
  fmt::print(stderr, "{}: {}\nTry '{} --help'.\n", app.get_name(), complaint, help);
  return kExitUsage;
}

}  // namespace

std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help or --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::string complaint = error.what();
    if (const auto words = app.remaining(); app.get_subcommands().empty() && !words.empty()) {
      complaint = fmt::format("there is no command '{}'", words.front());
    }
    return not_understood(app, complaint);
  }
  if (const std::string name = without_value(app); !name.empty()) {
    return not_understood(app, fmt::format("{}: its value is empty", name));
  }
  return std::nullopt;
}

}  // namespace obd::tool
