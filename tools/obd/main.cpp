// obd: creates, inspects, changes and converts layered disk images. One file a subcommand; this one
// parses the command line, runs what was chosen, and turns errors into a sentence and an exit
// status.

#include <cstdio>
#include <exception>
#include <new>

#include "tools/obd/command.h"
#include "tools/obd/command_line.h"
#include "tools/obd/interrupt.h"

namespace obd::tool {
namespace {

using AddCommand = void (*)(CLI::App&, Runner&);
constexpr AddCommand kCommands[] = {add_create,  add_clone,  add_info,       add_check,
                                    add_verify,  add_map,    add_seal,       add_commit,
                                    add_compact, add_resize, add_merge,      add_convert,
                                    add_import,  add_export, add_import_tar, add_export_oci};

constexpr const char* kExamples = R"(Examples:
  obd create disk --size 10G --mkfs ext4     a new disk with an ext4 in it
  obd create top --from disk/config.v1.json  a new writable layer over a sealed image
  obd info disk                              its layers, and the space they take
  obd check disk                             verify every structure
  obd verify disk                            read everything, compare every checksum
  obd map disk                               where each byte is stored
  obd seal disk                              make its writable layer immutable
  obd commit disk -o changes.lsmt            a sealed layer from its writable one
  obd merge disk -o all.lsmt                 one sealed layer from all of its layers
  obd compact disk                           give back the space that dead data holds
  obd resize disk +10G                       a larger disk
  obd clone disk copy                        a second image that shares its layers
  obd convert base.lsmt -o base.z -z zstd    the same layer, compressed
  obd import disk.raw -o base.lsmt           a sealed layer from a raw disk
  obd export disk -o disk.raw                a raw disk from an image
  obd import-tar a.tar b.tar.gz -o app       an image from the layers of a container image
  obd export-oci app -o app-oci              a container image whose layers are the image's
  nbdkit overlaybd disk/config.v1.json       serve it over NBD

'obd COMMAND --help' tells all about a command. Exit status: 0 success, 1 failure,
2 the command line was not understood ('check' and 'verify' have their own).)";

int run(int argc, char** argv) {
  CLI::App app(
      "Creates, inspects, changes and converts layered disk images in the overlaybd format.",
      "obd");
  app.set_version_flag("--version", "obd " OBD_VERSION);
  app.get_formatter()->column_width(34);
  app.footer(kExamples);
  app.require_subcommand(1);
  Runner chosen;
  for (const AddCommand add : kCommands) add(app, chosen);

  if (const auto status = parse_command_line(app, argc, argv)) return *status;

  catch_interrupts();
  const Result<int> status = chosen();
  die_if_interrupted();
  if (!status) {
    fmt::print(stderr, "obd: {}\n", status.error().message);
    return kExitFailure;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    fmt::print(stderr, "obd: could not write to standard output\n");
    return kExitFailure;
  }
  return *status;
}

}  // namespace
}  // namespace obd::tool

int main(int argc, char** argv) {
  try {
    return obd::tool::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("obd: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "obd: internal error: %s\n", error.what());
  }
  return obd::tool::kExitFailure;
}
