// Inspects one photo with the exported graph. C#, the package Microsoft.ML.OnnxRuntime, nothing else.
//
//   dotnet new console -o inspect && cd inspect && dotnet add package Microsoft.ML.OnnxRuntime
//   (put this file in the place of Program.cs)
//   dotnet run -- model.onnx sample/photo.ppm THRESHOLD        an 8-bit RGB photo, prepared here
//   dotnet run -- model.onnx sample/prepared.f32 THRESHOLD     the prepared input as raw float32
//
// A fourth argument is `resize` of model.json where that is not null. README.md tells each step.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

internal static class Inspect
{
    // RGB, 8 bits a channel, row by row.
    private sealed record Photo(int Height, int Width, byte[] Pixels);

    // One output pixel along an axis: the first input pixel it is made of, and their weights.
    private sealed record Taps(int First, long[] Weights);

    private const int Precision = 22; // weights are whole numbers of 2^-22

    private static Taps[] Filter(int length, float start, float end, int outLength)
    {
        double scale = (double)(float)(end - start) / outLength;
        double reach = Math.Max(scale, 1.0); // half the width of the triangle
        var all = new Taps[outLength];
        for (int i = 0; i < outLength; i++)
        {
            double centre = start + (i + 0.5) * scale;
            int first = Math.Max((int)(centre - reach + 0.5), 0);
            int last = Math.Min((int)(centre + reach + 0.5), length);
            double[] weights = Enumerable.Range(first, last - first)
                .Select(x => Math.Max(0.0, 1.0 - Math.Abs((x - centre + 0.5) / reach)))
                .ToArray();
            double sum = weights.Sum();
            all[i] = new Taps(
                first,
                weights.Select(w => (long)Math.Floor(w / sum * (1 << Precision) + 0.5)).ToArray());
        }
        return all;
    }

    private static byte Rounded(long sum) =>
        (byte)Math.Clamp((sum + (1 << (Precision - 1))) >> Precision, 0, 255);

    // Across first, then down, with a rounding to 8 bits after each: that order is part of the result.
    private static byte[] Resize(Photo photo, int height, int width, float[] box)
    {
        Taps[] across = Filter(photo.Width, box[0], box[2], width);
        var narrow = new byte[3 * photo.Height * width];
        for (int y = 0; y < photo.Height; y++)
            for (int x = 0; x < width; x++)
                for (int c = 0; c < 3; c++)
                {
                    long sum = 0;
                    for (int k = 0; k < across[x].Weights.Length; k++)
                        sum += across[x].Weights[k]
                            * photo.Pixels[3 * (y * photo.Width + across[x].First + k) + c];
                    narrow[3 * (y * width + x) + c] = Rounded(sum);
                }
        Taps[] down = Filter(photo.Height, box[1], box[3], height);
        var result = new byte[3 * height * width];
        for (int y = 0; y < height; y++)
            for (int i = 0; i < 3 * width; i++)
            {
                long sum = 0;
                for (int k = 0; k < down[y].Weights.Length; k++)
                    sum += down[y].Weights[k] * narrow[3 * (down[y].First + k) * width + i];
                result[3 * y * width + i] = Rounded(sum);
            }
        return result;
    }

    // The whole photo, or the middle of it where the shorter side is resized to `resize` first.
    private static float[] SourceBox(Photo photo, int height, int width, int resize)
    {
        if (resize == 0)
            return new float[] { 0, 0, photo.Width, photo.Height };
        int side = Math.Min(photo.Height, photo.Width);
        int h = (int)((long)resize * photo.Height / side);
        int w = (int)((long)resize * photo.Width / side);
        double top = Math.Round((h - height) / 2.0, MidpointRounding.ToEven);
        double left = Math.Round((w - width) / 2.0, MidpointRounding.ToEven);
        return new[]
        {
            (float)(left * photo.Width / w), (float)(top * photo.Height / h),
            (float)((left + width) * photo.Width / w), (float)((top + height) * photo.Height / h),
        };
    }

    // (3, height, width) in 0 to 1: planes of red, green and blue.
    private static float[] Prepare(Photo photo, int height, int width, int resize)
    {
        byte[] small = Resize(photo, height, width, SourceBox(photo, height, width, resize));
        int plane = height * width;
        var input = new float[3 * plane];
        for (int i = 0; i < plane; i++)
            for (int c = 0; c < 3; c++)
                input[c * plane + i] = small[3 * i + c] / 255.0f;
        return input;
    }

    // "P6 width height 255", one blank, then the pixels.
    private static Photo ReadPpm(byte[] file)
    {
        var words = new List<string>();
        int at = 0;
        while (words.Count < 4)
        {
            int start = at;
            while (!char.IsWhiteSpace((char)file[at])) at++;
            if (at > start) words.Add(System.Text.Encoding.ASCII.GetString(file, start, at - start));
            at++;
        }
        if (words[0] != "P6" || words[3] != "255")
            throw new InvalidDataException("the photo is not a PPM file of 8 bits");
        return new Photo(int.Parse(words[2]), int.Parse(words[1]), file[at..]);
    }

    private static int Main(string[] arguments)
    {
        if (arguments.Length is < 3 or > 4)
        {
            Console.Error.WriteLine(
                "usage: inspect MODEL.onnx PHOTO.ppm|PREPARED.f32 THRESHOLD [RESIZE]");
            return 2;
        }
        using var options = new SessionOptions
        {
            LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR,
        };
        using var session = new InferenceSession(arguments[0], options); // once for all photos
        int[] shape = session.InputMetadata["photos"].Dimensions;
        int height = shape[2], width = shape[3];

        byte[] file = File.ReadAllBytes(arguments[1]);
        int resize = arguments.Length > 3 ? int.Parse(arguments[3]) : 0;
        float[] input = arguments[1].EndsWith(".ppm", StringComparison.Ordinal)
            ? Prepare(ReadPpm(file), height, width, resize)
            : MemoryMarshal.Cast<byte, float>(file).ToArray(); // little-endian, as every PC is
        var photos = new DenseTensor<float>(input, new[] { 1, 3, height, width });
        using var found = session.Run(
            new[] { NamedOnnxValue.CreateFromTensor("photos", photos) }, new[] { "score", "map" });

        float score = found[0].AsEnumerable<float>().First();
        float[] map = found[1].AsEnumerable<float>().ToArray();
        int peak = Array.IndexOf(map, map.Max());
        CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
        Console.WriteLine($"score {score:G9}");
        Console.WriteLine($"map {map[peak]:G9} at x {peak % width} y {peak / width}");
        double threshold = double.Parse(arguments[2], CultureInfo.InvariantCulture);
        Console.WriteLine(score > threshold ? "anomalous" : "good");
        return 0;
    }
}
