// Inspects one photo with the exported graph. C++17, ONNX Runtime's C++ API, nothing else.
//
//   g++ -O2 -std=c++17 inspect.cpp -I ORT/include -L ORT/lib -lonnxruntime -o inspect
//   ./inspect model.onnx sample/photo.ppm THRESHOLD        an 8-bit RGB photo, prepared here
//   ./inspect model.onnx sample/prepared.f32 THRESHOLD     the prepared input as raw float32
//
// A fourth argument is `resize` of model.json where that is not null. README.md tells each step.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Photo {  // RGB, 8 bits a channel, row by row
  int height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

struct Box {  // the part of the photo that becomes the input, in its pixels
  float x0, y0, x1, y1;
};

// One output pixel along an axis: the first input pixel it is made of, and their weights.
struct Taps {
  int first = 0;
  std::vector<std::int64_t> weights;  // in units of 2^-22
};

constexpr int kPrecision = 22;

std::vector<Taps> Filter(int length, float start, float end, int out_length) {
  const double scale = static_cast<double>(end - start) / out_length;
  const double reach = std::max(scale, 1.0);  // half the width of the triangle
  std::vector<Taps> all(out_length);
  for (int i = 0; i < out_length; ++i) {
    const double centre = start + (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - reach + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + reach + 0.5), length);
    std::vector<double> weights;
    double sum = 0.0;
    for (int x = first; x < last; ++x) {
      weights.push_back(std::max(0.0, 1.0 - std::abs((x - centre + 0.5) / reach)));
      sum += weights.back();
    }
    all[i].first = first;
    for (double w : weights)
      all[i].weights.push_back(std::llround(std::floor(w / sum * (1 << kPrecision) + 0.5)));
  }
  return all;
}

std::uint8_t Rounded(std::int64_t sum) {
  sum = (sum + (1 << (kPrecision - 1))) >> kPrecision;
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum, 0, 255));
}

// Across first, then down, with a rounding to 8 bits after each: that order is part of the result.
Photo Resize(const Photo& photo, int height, int width, const Box& box) {
  const auto across = Filter(photo.width, box.x0, box.x1, width);
  Photo narrow{photo.height, width, std::vector<std::uint8_t>(3u * photo.height * width)};
  for (int y = 0; y < photo.height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < across[x].weights.size(); ++k)
          sum += across[x].weights[k] *
                 photo.pixels[3 * (std::size_t(y) * photo.width + across[x].first + k) + c];
        narrow.pixels[3 * (std::size_t(y) * width + x) + c] = Rounded(sum);
      }
  const auto down = Filter(photo.height, box.y0, box.y1, height);
  Photo out{height, width, std::vector<std::uint8_t>(3u * height * width)};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < down[y].weights.size(); ++k)
          sum += down[y].weights[k] *
                 narrow.pixels[3 * ((down[y].first + k) * width + x) + c];
        out.pixels[3 * (std::size_t(y) * width + x) + c] = Rounded(sum);
      }
  return out;
}

// The whole photo, or the middle of it where the shorter side is resized to `resize` first.
Box SourceBox(const Photo& photo, int height, int width, int resize) {
  if (resize == 0) return {0, 0, float(photo.width), float(photo.height)};
  const int side = std::min(photo.height, photo.width);
  const int h = int(std::int64_t(resize) * photo.height / side);
  const int w = int(std::int64_t(resize) * photo.width / side);
  const double top = std::nearbyint((h - height) / 2.0);  // halves to the even number
  const double left = std::nearbyint((w - width) / 2.0);
  return {float(left * photo.width / w), float(top * photo.height / h),
          float((left + width) * photo.width / w), float((top + height) * photo.height / h)};
}

// (3, height, width) in 0 to 1: planes of red, green and blue.
std::vector<float> Prepare(const Photo& photo, int height, int width, int resize) {
  const Photo small = Resize(photo, height, width, SourceBox(photo, height, width, resize));
  std::vector<float> input(3u * height * width);
  const std::size_t plane = std::size_t(height) * width;
  for (std::size_t i = 0; i < plane; ++i)
    for (int c = 0; c < 3; ++c) input[c * plane + i] = small.pixels[3 * i + c] / 255.0f;
  return input;
}

Photo ReadPpm(std::ifstream& file) {  // "P6 width height 255", one blank, then the pixels
  std::string magic;
  int width = 0, height = 0, most = 0;
  if (!(file >> magic >> width >> height >> most) || magic != "P6" || most != 255)
    throw std::runtime_error("the photo is not a PPM file of 8 bits");
  file.get();
  Photo photo{height, width, std::vector<std::uint8_t>(3u * height * width)};
  if (!file.read(reinterpret_cast<char*>(photo.pixels.data()), photo.pixels.size()))
    throw std::runtime_error("the photo ends too early");
  return photo;
}

std::vector<float> ReadInput(const std::string& path, int height, int width, int resize) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  if (file.peek() == 'P' && path.size() > 4 && path.substr(path.size() - 4) == ".ppm")
    return Prepare(ReadPpm(file), height, width, resize);
  std::vector<float> input(3u * height * width);
  const std::streamsize bytes = input.size() * sizeof(float);
  if (!file.read(reinterpret_cast<char*>(input.data()), bytes) || file.peek() != EOF)
    throw std::runtime_error("the prepared input is not 3 x height x width float32");
  return input;
}

int Run(int count, char** arguments) {
  if (count < 4 || count > 5) {
    std::fprintf(stderr, "usage: inspect MODEL.onnx PHOTO.ppm|PREPARED.f32 THRESHOLD [RESIZE]\n");
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "inspect");
  Ort::SessionOptions options;
#ifdef _WIN32
  const std::string given(arguments[1]);
  const std::wstring path(given.begin(), given.end());
  Ort::Session session(env, path.c_str(), options);  // once for all photos
#else
  Ort::Session session(env, arguments[1], options);  // once for all photos
#endif
  std::size_t photos = 0;  // the bank's inputs have defaults and may stand anywhere
  Ort::AllocatorWithDefaultOptions allocator;
  while (std::string(session.GetInputNameAllocated(photos, allocator).get()) != "photos") ++photos;
  auto shape = session.GetInputTypeInfo(photos).GetTensorTypeAndShapeInfo().GetShape();
  const int height = int(shape[2]), width = int(shape[3]);
  shape[0] = 1;  // one photo at a time

  auto input = ReadInput(arguments[2], height, width, count > 4 ? std::atoi(arguments[4]) : 0);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const Ort::Value tensor = Ort::Value::CreateTensor<float>(memory, input.data(), input.size(),
                                                            shape.data(), shape.size());
  const char* inputs[] = {"photos"};
  const char* outputs[] = {"score", "map"};
  const auto found = session.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 2);

  const float score = *found[0].GetTensorData<float>();
  const float* map = found[1].GetTensorData<float>();
  const auto peak = std::max_element(map, map + std::size_t(height) * width) - map;
  std::printf("score %.9g\n", score);
  std::printf("map %.9g at x %d y %d\n", map[peak], int(peak % width), int(peak / width));
  std::printf("%s\n", score > std::atof(arguments[3]) ? "anomalous" : "good");
  return 0;
}

int main(int count, char** arguments) {
  try {
    return Run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
