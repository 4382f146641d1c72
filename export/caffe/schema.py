"""The part of caffe.proto that classifiers need; `export.caffe.net` reads files with it.

From the BSD-2-Clause caffe.proto of BVLC/caffe. `BlobProto.data` is a packed `repeated float` there.
"""

from export.protobuf import read_schema

_TEXT = """
message BlobShape {
    repeated int64 dim = 1;
}
message BlobProto {
    optional BlobShape shape = 7;
    optional bytes data = 5;
}
enum Phase {
    TRAIN = 0;
    TEST = 1;
}
message NetStateRule {
    optional Phase phase = 1;
}
message ConvolutionParameter {
    optional uint32 num_output = 1;
    optional bool bias_term = 2 [default = true];
    repeated uint32 pad = 3;
    repeated uint32 kernel_size = 4;
    repeated uint32 stride = 6;
    repeated uint32 dilation = 18;
    optional uint32 pad_h = 9;
    optional uint32 pad_w = 10;
    optional uint32 kernel_h = 11;
    optional uint32 kernel_w = 12;
    optional uint32 stride_h = 13;
    optional uint32 stride_w = 14;
    optional uint32 group = 5 [default = 1];
    optional int32 axis = 16 [default = 1];
}
message PoolingParameter {
    enum PoolMethod {
        MAX = 0;
        AVE = 1;
        STOCHASTIC = 2;
    }
    enum RoundMode {
        CEIL = 0;
        FLOOR = 1;
    }
    optional PoolMethod pool = 1 [default = MAX];
    repeated uint32 pad = 4;
    repeated uint32 kernel_size = 2;
    repeated uint32 stride = 3;
    optional uint32 pad_h = 9;
    optional uint32 pad_w = 10;
    optional uint32 kernel_h = 5;
    optional uint32 kernel_w = 6;
    optional uint32 stride_h = 7;
    optional uint32 stride_w = 8;
    optional bool global_pooling = 12;
    optional RoundMode round_mode = 13 [default = CEIL];
}
message InnerProductParameter {
    optional uint32 num_output = 1;
    optional bool bias_term = 2 [default = true];
    optional int32 axis = 5 [default = 1];
    optional bool transpose = 6;
}
message LRNParameter {
    enum NormRegion {
        ACROSS_CHANNELS = 0;
        WITHIN_CHANNEL = 1;
    }
    optional uint32 local_size = 1 [default = 5];
    optional float alpha = 2 [default = 1];
    optional float beta = 3 [default = 0.75];
    optional NormRegion norm_region = 4 [default = ACROSS_CHANNELS];
    optional float k = 5 [default = 1];
}
message ConcatParameter {
    optional int32 axis = 2 [default = 1];
    optional uint32 concat_dim = 1 [default = 1];
}
message EltwiseParameter {
    enum EltwiseOp {
        PROD = 0;
        SUM = 1;
        MAX = 2;
    }
    optional EltwiseOp operation = 1 [default = SUM];
    repeated float coeff = 2;
}
message BatchNormParameter {
    optional bool use_global_stats = 1;
    optional float eps = 3 [default = 1e-5];
}
message ScaleParameter {
    optional int32 axis = 1 [default = 1];
    optional int32 num_axes = 2 [default = 1];
    optional bool bias_term = 4;
}
message ReLUParameter {
    optional float negative_slope = 1;
}
message InputParameter {
    repeated BlobShape shape = 1;
}
message TransformationParameter {
    optional float scale = 1 [default = 1];
    repeated float mean_value = 5;
}
message LayerParameter {
    optional string name = 1;
    optional string type = 2;
    repeated string bottom = 3;
    repeated string top = 4;
    repeated BlobProto blobs = 7;
    repeated NetStateRule include = 8;
    repeated NetStateRule exclude = 9;
    optional BatchNormParameter batch_norm_param = 139;
    optional ConcatParameter concat_param = 104;
    optional ConvolutionParameter convolution_param = 106;
    optional EltwiseParameter eltwise_param = 110;
    optional InnerProductParameter inner_product_param = 117;
    optional InputParameter input_param = 143;
    optional LRNParameter lrn_param = 118;
    optional PoolingParameter pooling_param = 121;
    optional ReLUParameter relu_param = 123;
    optional ScaleParameter scale_param = 142;
    optional TransformationParameter transform_param = 100;
}
message V1LayerParameter {
    enum LayerType {
        NONE = 0;
        ABSVAL = 35;
        ACCURACY = 1;
        ARGMAX = 30;
        BNLL = 2;
        CONCAT = 3;
        CONTRASTIVE_LOSS = 37;
        CONVOLUTION = 4;
        DATA = 5;
        DECONVOLUTION = 39;
        DROPOUT = 6;
        DUMMY_DATA = 32;
        EUCLIDEAN_LOSS = 7;
        ELTWISE = 25;
        EXP = 38;
        FLATTEN = 8;
        HDF5_DATA = 9;
        HDF5_OUTPUT = 10;
        HINGE_LOSS = 28;
        IM2COL = 11;
        IMAGE_DATA = 12;
        INFOGAIN_LOSS = 13;
        INNER_PRODUCT = 14;
        LRN = 15;
        MEMORY_DATA = 29;
        MULTINOMIAL_LOGISTIC_LOSS = 16;
        MVN = 34;
        POOLING = 17;
        POWER = 26;
        RELU = 18;
        SIGMOID = 19;
        SIGMOID_CROSS_ENTROPY_LOSS = 27;
        SILENCE = 36;
        SOFTMAX = 20;
        SOFTMAX_LOSS = 21;
        SPLIT = 22;
        SLICE = 33;
        TANH = 23;
        WINDOW_DATA = 24;
        THRESHOLD = 31;
    }
    optional string name = 4;
    optional LayerType type = 5;
    repeated string bottom = 2;
    repeated string top = 3;
    repeated BlobProto blobs = 6;
    repeated NetStateRule include = 32;
    repeated NetStateRule exclude = 33;
    optional ConcatParameter concat_param = 9;
    optional ConvolutionParameter convolution_param = 10;
    optional EltwiseParameter eltwise_param = 24;
    optional InnerProductParameter inner_product_param = 17;
    optional LRNParameter lrn_param = 18;
    optional PoolingParameter pooling_param = 19;
    optional ReLUParameter relu_param = 30;
    optional TransformationParameter transform_param = 36;
}
message NetParameter {
    optional string name = 1;
    repeated string input = 3;
    repeated int32 input_dim = 4;
    repeated BlobShape input_shape = 8;
    repeated LayerParameter layer = 100;
    repeated V1LayerParameter layers = 2;
}
"""

NetParameter = read_schema("zooserve.caffe", _TEXT)["NetParameter"]
